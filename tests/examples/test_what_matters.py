"""`examples/what_matters`: which settings are told apart, and that every setting is one that GRPO takes."""

import importlib.util
from pathlib import Path

import pytest

from open_r1 import GRPOConfig
from open_r1.errors import UserError

FOLDER = Path(__file__).parents[2] / "examples" / "what_matters"


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
