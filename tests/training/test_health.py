import pytest
from runs import arguments, make_folder

from open_r1 import grpo
from open_r1.errors import UserError
from open_r1.report.health import Health
from open_r1.report.recorder import read_rollouts

FINE = {
    "reward": 0.4,
    "reward_std": 0.5,
    "frac_reward_zero_std": 0.3,
    "completions/clipped_ratio": 0.1,
    "entropy": 0.8,
    "rewards/accuracy/mean": 0.4,
    "rewards/format/mean": 0.5,
}


def told(steps):
    health = Health(window=4)
    return [problem for step in steps for problem in health.check(FINE | step)]


@pytest.mark.parametrize(
    ("sick", "words"),
    [
        ({"reward": 0.0, "reward_std": 0.0, "frac_reward_zero_std": 1.0}, "reward has been 0"),
        ({"frac_reward_zero_std": 1.0}, "equal rewards"),
        ({"completions/clipped_ratio": 0.97}, "cut off"),
        ({"entropy": 0.01}, "no longer explores"),
    ],
)
def test_each_sickness_is_told_once_and_only_when_it_lasts(sick, words):
    assert told([{}] * 12) == []
    assert told([sick] * 3 + [{}] + [sick] * 3) == []
    problems = told([{}] * 3 + [sick] * 9)
    assert len(problems) == 1
    assert words in problems[0]
    assert len(told([sick] * 5 + [{}] * 2 + [sick] * 5)) == 2


def test_a_limit_is_part_of_what_is_reported():
    (problem,) = told([{"entropy": 0.02}] * 4)
    assert "the entropy was at most 0.02 nats" in problem
    (problem,) = told([{"sampling/logprob_difference": 0.5}] * 3)
    assert "differed by at least 0.5 nats" in problem


def test_three_steps_are_enough_where_everything_is_cut_off_and_nothing_differs():
    sick = {"frac_reward_zero_std": 1.0, "completions/clipped_ratio": 1.0, "reward": 0.0, "reward_std": 0.0}
    assert told([sick] * 2) == []
    (problem,) = told([sick] * 3)
    assert "nothing is learned. Raise max_completion_length" in problem
    assert told([sick | {"completions/clipped_ratio": 0.99}] * 3) == []
    assert told([sick | {"frac_reward_zero_std": 0.99}] * 3) == []


def test_three_steps_are_enough_where_the_trainer_computes_another_model_than_the_sampler():
    sick = {"sampling/logprob_difference": 1.9}
    assert told([sick] * 2 + [{"sampling/logprob_difference": 0.02}] + [sick] * 2) == []
    (problem,) = told([sick] * 3)
    assert "between sampler and trainer (1.90 in the last one" in problem


def test_form_learned_in_place_of_the_answer():
    drift = [{"rewards/format/mean": 0.1 * i, "rewards/accuracy/mean": 0.5 - 0.02 * i} for i in range(8)]
    (problem,) = told(drift)
    assert "format reward rose while accuracy fell" in problem
    assert told([step | {"rewards/accuracy/mean": 0.4} for step in drift]) == []


def test_evaluations_are_passed_over():
    assert Health(window=1).check({"eval_reward": 0.0}) == []


def test_a_hopeless_run_stops_with_the_reason_and_a_failing_reward_keeps_its_rollouts(tmp_path):
    folder = make_folder(tmp_path)
    options = {"reward_funcs": "accuracy", "max_steps": 14, "num_train_epochs": 9, "save_strategy": "no"}
    reason = r"stopped at step \d+ \(stop_on_unhealthy\): .*(0 for 10 steps|nothing is learned)"
    with pytest.raises(UserError, match=reason):
        grpo.main(arguments(folder, "grpo", tmp_path / "out", stop_on_unhealthy="true", **options))
    options["reward_funcs"] = "odd_rewards:broken"
    with pytest.raises(UserError, match=r"broken.* step 1 .*ZeroDivisionError"):
        grpo.main(arguments(folder, "grpo", tmp_path / "broken", **options))
    rows = read_rollouts(tmp_path / "broken/run", 1).to_pylist()
    assert len(rows) == 8
    assert all(row["completion"] is not None and row["reward"] is None for row in rows)
