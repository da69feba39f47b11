"""`examples/what_matters`: which settings are told apart, and that every setting is one that GRPO takes."""

import argparse
import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from open_r1 import GRPOConfig
from open_r1.errors import UserError
from open_r1.report.recorder import read_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "what_matters"
BASE = ROOT / "src" / "open_r1" / "demo" / "base"


def load(name):
    spec = importlib.util.spec_from_file_location(f"what_matters_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


table, train = load("table"), load("train")


def rates(right, problems=200):
    """`right` of the problems are always solved, the others never."""
    return [1.0] * right + [0.0] * (problems - right)


def test_a_clear_gain_is_told_apart_with_the_exact_difference():
    found = table.difference(table.Setting("dapo", [rates(50), rates(54)]), table.Setting("x", [rates(90), rates(98)]))
    assert found.estimate.value == pytest.approx((90 + 98) / 400 - (50 + 54) / 400)
    assert found.told_apart and found.estimate.ci95[0] > 0
    back = table.difference(table.Setting("dapo", [rates(90), rates(98)]), table.Setting("x", [rates(50), rates(54)]))
    assert back.told_apart and back.estimate.ci95[1] < 0


def test_seeds_that_overlap_are_not_told_apart_whatever_the_interval():
    found = table.difference(table.Setting("dapo", [rates(20), rates(60)]), table.Setting("x", [rates(50), rates(90)]))
    assert found.estimate.ci95[0] > 0 and not found.told_apart


def test_a_small_gain_is_not_told_apart():
    found = table.difference(table.Setting("dapo", [rates(50), rates(50)]), table.Setting("x", [rates(51), rates(51)]))
    assert not found.told_apart


def test_the_table_begins_with_the_baseline():
    settings = [table.Setting("dapo", [rates(50), rates(54)], 40), table.Setting("cispo", [rates(90), rates(98)], 38)]
    head, _, first, second = table.table(settings)
    assert "minus dapo" in head
    assert first == "| dapo | 25.0, 27.0 | 40 | - | - |"
    assert second.startswith("| cispo | 45.0, 49.0 | 38 | +21.0 [") and second.endswith("| yes |")


def test_the_folders_that_training_leaves_are_read(tmp_path):
    for setting, seed, right in [("cispo", 1, 3), ("dapo", 1, 1), ("dapo", 2, 2), ("cispo", 2, 4)]:
        folder = tmp_path / setting / f"seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"rates": rates(right, 4), "steps": 10 * seed}))
    (tmp_path / "gspo" / "seed-1").mkdir(parents=True)  # unfinished
    found = table.load_settings(tmp_path)
    assert [(s.name, s.scores, s.steps) for s in found] == [("dapo", [0.25, 0.5], 15), ("cispo", [0.75, 1.0], 15)]


@pytest.mark.parametrize("other_was_faster", [False, True])
def test_the_data_are_moved_with_a_posix_mv_and_never_deleted_unsaid(tmp_path, other_was_faster):
    """Only `tasks.py` does anything here: it writes the data and, if another command was faster, also theirs."""
    theirs = 'mkdir "$OUT/data"; touch "$OUT/data/theirs"' if other_was_faster else ":"
    programs = {
        "mv": 'case "$1" in -*) echo "mv: illegal option" >&2; exit 64;; esac; exec /bin/mv "$@"',
        "python3": f"""case "$1" in
            *tasks.py) mkdir -p "$3"; touch "$3/mine"; {theirs};;
        esac""",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        ["sh", FOLDER / "run.sh"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert [file.name for file in (tmp_path / "out" / "data").iterdir()] == ["theirs" if other_was_faster else "mine"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["data"]
    assert ("was written by another command" in done.stdout) == other_was_faster


def test_without_a_baseline_there_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no finished run of dapo"):
        table.load_settings(tmp_path)


@pytest.mark.parametrize("name", list(train.SETTINGS))
def test_a_setting_is_one_that_grpo_takes_and_differs_from_the_baseline(name, tmp_path):
    config = GRPOConfig(str(tmp_path), **(train.COMMON | train.SETTINGS[name]), use_cpu=True)
    assert config.max_steps_per_rollout == 4
    assert config.per_device_train_batch_size % config.num_generations == 0
    assert name == train.BASELINE or any(train.COMMON.get(k) != v for k, v in train.SETTINGS[name].items())
    assert len(train.SETTINGS) == 8


def test_training_stops_when_the_time_is_up(monkeypatch):
    clock = iter([100.0, 110.0, 174.0, 176.0])  # the fourth step, where the clock begins, and those after it
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock))
    stop, stopped = train.StopAfter(75), []
    for step in (4, 5, 6, 7):
        control = train.TrainerControl()
        stop.on_step_end(None, train.TrainerState(global_step=step), control)
        stopped.append(control.should_training_stop)
    assert stopped == [False, False, False, True]


def test_a_run_with_the_engine_of_another_is_the_run_alone(tmp_path, monkeypatch):
    problems = [{"problem": f"What is {i}+1?", "answer": str(i + 1)} for i in range(1, 9)]
    for name in ("problems", "held_out"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    monkeypatch.setitem(train.COMMON, "engine", "native")
    monkeypatch.setitem(train.COMMON, "use_cpu", True)
    monkeypatch.setitem(train.COMMON, "warmup_steps", 0)
    args = argparse.Namespace(model=str(BASE), data=tmp_path, seconds=60.0, smoke=True)
    engine = train.run(args, "dapo", 1, tmp_path / "first", None)
    assert train.run(args, "cispo", 2, tmp_path / "second", engine) is engine
    train.run(args, "cispo", 2, tmp_path / "alone", None)
    second, alone = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("second", "alone"))
    assert second == alone and any(second["rates"])
    losses = [[line.get("loss") for line in read_metrics(tmp_path / n / "run")] for n in ("first", "second", "alone")]
    assert losses[1] == losses[2] != losses[0]
    assert not list(tmp_path.glob("*/*.safetensors"))
