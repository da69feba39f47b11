"""Nothing leaves this machine unless the user named a hub id or a tracker; mirrors; offline mode."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub
from patience import PATIENCE
from runs import arguments, make_folder

ROOT = Path(__file__).parents[2]
EVERYTHING = """
import json, sys
from open_r1.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("offline"))


@pytest.fixture
def run(tmp_path):
    """Runs commands one after another in a process that records, and refuses, whatever would leave this machine."""

    def run_commands(*commands, **environment):
        env = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_ENDPOINT")}
        paths = [ROOT / "tests/launch/no_network", ROOT / "src", ROOT / "tests/training"]
        env |= {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "ATTEMPTS": str(tmp_path / "attempts"),
            "HF_HOME": str(tmp_path / "hf"),
            **environment,
        }
        words = [[str(word) for word in command] for command in commands]
        done = subprocess.run(
            [sys.executable, "-c", EVERYTHING, json.dumps(words)],
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        return done

    yield run_commands
    attempts = tmp_path / "attempts"
    assert not attempts.exists(), attempts.read_text()


def commands(toys, out):
    model = toys / "model"
    return [
        ["sft", *arguments(toys, "sft", out / "sft", max_steps=2)],
        ["grpo", *arguments(toys, "grpo", out / "grpo", max_steps=2)],
        ["evaluate", "--model", model, "--tasks", toys / "problems.jsonl", "--limit", 2, "--max_new_tokens", 4,
         "--output", out / "eval"],
        ["generate", "--model", model, "--hf-dataset", toys / "problems.jsonl", "--prompt-column", "problem",
         "--max-new-tokens", 4, "--num-generations", 1, "--output", out / "generated"],
        ["launch", "--dry-run", toys / "grpo.yaml"],
    ]  # fmt: skip


@pytest.mark.parametrize("offline", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_local_models_and_data_need_no_network(offline, toys, run, tmp_path):
    words = arguments(toys, "grpo", tmp_path / "grpo")
    recipe = {n[2:]: v for n, v in zip(words[::2], words[1::2], strict=True)}
    (toys / "grpo.yaml").write_text(json.dumps(recipe))
    run(*commands(toys, tmp_path), HF_HUB_OFFLINE=offline)
    assert (tmp_path / "sft" / "model.safetensors").is_file()


def test_the_test_itself_sees_what_leaves_the_machine(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests/launch/no_network"), "ATTEMPTS": str(tmp_path / "attempts")}
    code = "import urllib.request; urllib.request.urlopen('http://huggingface.co')"
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True).returncode == 1
    assert "huggingface.co" in (tmp_path / "attempts").read_text()


def test_a_mirror_serves_models_and_data_and_its_cache_serves_offline(toys, run, tmp_path):
    shutil.copytree(toys / "model", tmp_path / "hub/models/owner/tiny")
    (tmp_path / "hub/datasets/owner/traces").mkdir(parents=True)
    shutil.copy(toys / "traces.jsonl", tmp_path / "hub/datasets/owner/traces/train.jsonl")
    hub_ids = {"model_name_or_path": "owner/tiny", "dataset_name": "owner/traces", "max_steps": 1}
    with FakeHub(tmp_path / "hub") as hub:
        run(["sft", *arguments(toys, "sft", tmp_path / "online", **hub_ids)], HF_ENDPOINT=hub.url)
        assert any("owner/tiny/resolve" in path for path in hub.requests)
        assert any("owner/traces" in path for path in hub.requests)
    run(["sft", *arguments(toys, "sft", tmp_path / "offline", **hub_ids)], HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert (tmp_path / "offline" / "model.safetensors").is_file()
