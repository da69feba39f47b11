"""`benchmarks/grpo_layouts.py`: every layout on the same completions, and a server for each of them."""

import importlib
import json
from pathlib import Path

import pytest
from runs import make_folder

from open_r1.errors import UserError

ROOT = Path(__file__).parents[2]
WORDS = ["--model", "some/folder", "--data", "rows.jsonl", "--gpus", "1", "2", "4", "--prompts", "12"]


@pytest.fixture(scope="module")
def layouts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("grpo_layouts")


def test_cases_and_their_table(layouts, tmp_path, capsys, monkeypatch):
    asked = []

    def launch(self, case, timeout):
        asked.append((case["layout"], case["gpus"], case["processes"], case["staleness"]))
        if case["layout"] == "trl":
            return {"error": "no module named trl\nmore", "log": "the reason"}
        return {"seconds": 1.5, "range": [1.0, 2.0], "tokens": 1234, **dict.fromkeys(layouts.PHASES, 0.25)}

    monkeypatch.setattr(layouts.Layouts, "launch", launch)
    words = [*WORDS, "--results", str(tmp_path / "found.jsonl")]
    layouts.main(words)
    assert asked == [
        ("native", 1, 1, 0),
        *[("native", 2, 2, 0), ("server", 2, 1, 0), ("server", 2, 1, 1), ("trl", 2, 1, 0)],
        *[("native", 4, 4, 0), ("server", 4, 3, 0), ("server", 4, 3, 1), ("trl", 4, 3, 0)],
    ]
    shown = capsys.readouterr().out
    assert "| vLLM server, max_staleness 1 | 4 | 3 | 1.50 | 1.00 to 2.00 | 0.25 |" in shown
    assert "| TRL, vLLM server | 4 | 3 | - | - | - | - | - | - | - | - | - | no module named trl |" in shown
    layouts.main([*words, "--table"])
    assert len(asked) == 9 and capsys.readouterr().out == shown


def test_prompts_that_processes_cannot_share_are_refused(layouts, capsys):
    with pytest.raises(SystemExit):
        layouts.main([*WORDS[:-1], "16"])
    assert "--prompts is 16: it must be a multiple of 3 training processes" in capsys.readouterr().err


def test_cases_of_the_same_gpus_share_a_server_and_one_that_does_not_start_is_a_row(
    layouts, tmp_path, capsys, monkeypatch
):
    started, stopped = [], []

    class Server:
        url = "http://127.0.0.1:9"

        def poll(self):
            return None

        def stop(self):
            stopped.append(self)

    def start(self, layout, gpus):
        started.append((layout, gpus))
        if layout == "trl":
            raise UserError("the server ended with exit code 1")
        return Server()

    class Child:
        def __init__(self, name, words, env, log):
            results = words[words.index("--results") + 1]
            figures = {"seconds": 1.0, "range": [1, 1], "tokens": 9, **dict.fromkeys(layouts.PHASES, 0.0)}
            Path(results).write_text(json.dumps(figures) + "\n")
            asked.append((words[words.index("--inner") + 1], env["CUDA_VISIBLE_DEVICES"], words[-2:]))

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731

        def wait(self, seconds):
            return 0

    asked = []
    monkeypatch.setattr(layouts, "visible_gpus", lambda: ["0", "1", "2"])
    monkeypatch.setattr(layouts.Layouts, "start_server", start)
    monkeypatch.setattr(layouts, "ChildProcess", Child)
    layouts.main([*WORDS[:5], "2", "3", "--prompts", "6", "--logs", str(tmp_path), "--extra", "--bf16", "true"])
    assert started == [("server", ["1"]), ("trl", ["1"]), ("server", ["2"]), ("trl", ["2"])]
    assert len(stopped) == 2
    assert [(case, gpus) for case, gpus, _ in asked] == [
        *[("ours,0", "0,1"), ("ours,0", "0"), ("ours,1", "0")],
        *[("ours,0", "0,1,2"), ("ours,0", "0,1"), ("ours,1", "0,1")],
    ]
    assert [last for *_, last in asked[:2]] == [["--engine", "native"], ["--bf16", "true"]]
    assert capsys.readouterr().out.count("the server ended with exit code 1") == 2


@pytest.mark.slow
def test_the_native_engine_on_one_and_two_cpu_processes(layouts, tmp_path):
    folder = make_folder(tmp_path / "toys")
    words = ["--data", str(folder / "problems.jsonl"), "--model", str(folder / "model"), "--layouts", "native"]
    words += ["--prompts", "2", "--group", "4", "--tokens", "8", "--steps", "2", "--warmup", "1"]
    reward = str(ROOT / "tests/training/odd_rewards.py") + ":vowels"
    layouts.main([*words, "--results", str(tmp_path / "found.jsonl"), "--extra", "--reward_funcs", reward])
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [(result.get("error"), result.get("cut"), result["steps"]) for result in found] == [(None, None, 2)] * 2
    assert all(result["generation"] > 0 and result["training"] > 0 for result in found)
