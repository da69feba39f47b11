"""One Slurm job a benchmark, with a `sbatch` that notes what it was given."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import make_model, make_tokenizer

from open_r1.errors import UserError

ROOT = Path(__file__).parents[2]
SBATCH = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > "$SBATCH_LOG/$(ls "$SBATCH_LOG" | wc -l)"
[ -z "$SBATCH_FAILS" ] || { echo "sbatch: error: invalid partition" >&2; exit 1; }
echo 4711
"""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("run_benchmarks", ROOT / "scripts" / "run_benchmarks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, tmp_path, monkeypatch):
    programs, log = tmp_path / "bin", tmp_path / "log"
    programs.mkdir()
    log.mkdir()
    (programs / "sbatch").write_text(SBATCH)
    (programs / "sbatch").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SBATCH_LOG", str(log))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run_script(*words, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        script.main([str(word) for word in words])
        return [path.read_text().splitlines() for path in sorted(log.iterdir())]

    return run_script


def test_a_job_a_benchmark_with_the_words_as_they_are(run, capsys):
    words = ["--model-id", "org/Thinker-7B", "--model-revision", "v1", "--benchmarks", "math_500", "gpqa"]
    jobs = run(*words, "--system-prompt", "Think $HOME; 'first'", "--args", "--num-samples", "4")
    script = str(ROOT / "slurm" / "evaluate.slurm")
    for job, task in zip(jobs, ("math_500", "gpqa"), strict=True):
        assert job[:3] == ["--parsable", f"--job-name=open_r1-{task}", script]
        assert job[3:13] == ["--model", "org/Thinker-7B", "--task", task, "--revision", "v1", "--tp", "1", "--dp", "8"]
        assert job[13:] == ["--args", "--num-samples", "4", "--system-prompt", "Think $HOME; 'first'"]
    assert "math_500: job 4711" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "variables", "expected"),
    [
        ("org/Thinker-32B", {}, ("2", "4")),
        ("org/Thinker-70B", {}, ("8", "1")),
        ("org/Thinker-14B", {"SBATCH_GPUS_PER_NODE": "4"}, ("1", "4")),
        ("org/Thinker", {}, ("1", "8")),
    ],
)
def test_gpus_of_an_engine_follow_the_size(run, model, variables, expected):
    (job,) = run("--model-id", model, "--benchmarks", "aime24", **variables)
    assert (job[job.index("--tp") + 1], job[job.index("--dp") + 1]) == expected


def test_the_size_of_a_folder_is_counted(run, tmp_path):
    folder = make_tokenizer(tmp_path / "Thinker-70B")
    make_model(folder)
    (job,) = run("--model-id", folder, "--benchmarks", "aime24")
    assert job[job.index("--tp") + 1] == "1"


def test_local_runs_them_here(run, tmp_path):
    folder = make_tokenizer(tmp_path / "model")
    make_model(folder, max_position_embeddings=256)
    (tmp_path / "sums.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n')
    words = ["--model-id", folder, "--benchmarks", tmp_path / "sums.jsonl", "--local"]
    assert run(*words, "--args", "--num-samples", "2", "--max-new-tokens", "4") == []
    assert json.loads((folder / "evaluation" / "sums" / "results.json").read_text())["num_samples"] == 2


def test_the_benchmarks_are_listed():
    command = [sys.executable, str(ROOT / "scripts" / "run_benchmarks.py"), "--list-benchmarks"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert {"math_500", "gpqa:diamond", "aime24"} <= {line.split()[0] for line in listed.splitlines()}


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        (["--model-id", "org/M-7B"], {}, "--model-id and --benchmarks are needed"),
        (["--model-id", "org/M-7B", "--benchmarks", "aime23"], {}, "there is no task 'aime23'"),
        (["--model-id", "org/M-7B", "--benchmarks", "aime24"], {"PATH": "/nowhere"}, "there is no sbatch here"),
        (["--model-id", "org/M-7B", "--benchmarks", "aime24"], {"SBATCH_FAILS": "1"}, "invalid partition"),
        (["--model-id", "org/M-900B", "--benchmarks", "aime24"], {}, "needs .* GiB"),
    ],
)
def test_what_cannot_be_submitted_is_said(run, words, variables, expected):
    with pytest.raises(UserError, match=expected):
        run(*words, **variables)


def test_all_leaves_out_what_has_no_data_on_the_hub_and_says_so(run, capsys):
    jobs = run("--model-id", "org/Thinker-7B", "--benchmarks", "all")
    tasks = [job[job.index("--task") + 1] for job in jobs]
    assert {"math_500", "lcb", "humaneval", "codeforces"} <= set(tasks) and "ioi" not in tasks
    assert "ioi is left out, because its hub dataset has no tests" in capsys.readouterr().err
