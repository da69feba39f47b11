import io

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from open_r1.report.progress import ProgressCallback, headline, summary

GRPO_LOGS = {
    "loss": 0.01,
    "reward": 1.25,
    "reward_std": 0.5,
    "rewards/accuracy/mean": 0.75,
    "rewards/accuracy/std": 0.1,
    "completions/mean_length": 84.2,
    "completions/clipped_ratio": 0.25,
    "tokens_per_second": 12345.6,
}


def train(console, logs, *, main=True, task="zero", steps=2, end=True):
    callback = ProgressCallback(task, console)
    state = TrainerState(max_steps=steps, is_world_process_zero=main)
    args, control = TrainingArguments(), TrainerControl()
    callback.on_train_begin(args, state, control)
    for step in range(1, steps + 1):
        state.global_step = step
        callback.on_step_end(args, state, control)
        callback.on_log(args, state, control, logs=dict(logs))
        callback.on_prediction_step(args, state, control)
        callback.on_evaluate(args, state, control)
    callback.on_log(args, state, control, logs={"train_runtime": 65.0})
    if end:
        callback.on_train_end(args, state, control)
    return callback


def test_a_log_file_gets_one_plain_line_for_each_log():
    output = io.StringIO()
    train(Console(file=output, width=40), GRPO_LOGS)
    lines = output.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("zero  step 1/2  reward 1.25")
    for part in ("accuracy 0.75", "length 84.2", "cut off 25%", "12,346 tokens/s"):
        assert part in lines[0]
    assert "left" in lines[0] and "left" not in lines[1]
    assert lines[2] == "zero  finished 2 steps in 1:05"
    assert "\x1b" not in output.getvalue()


def test_a_terminal_gets_a_live_bar_and_its_cursor_back():
    output = io.StringIO()
    callback = train(Console(file=output, force_terminal=True, width=120), GRPO_LOGS, end=False)
    assert "\x1b[?25l" in output.getvalue()
    callback.close()
    callback.close()
    shown = output.getvalue()
    assert "zero" in shown and "reward 1.25" in shown and "2/2" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


@pytest.mark.parametrize("terminal", [True, False])
def test_other_processes_print_nothing(terminal):
    output = io.StringIO()
    train(Console(file=output, force_terminal=terminal), GRPO_LOGS, main=False)
    assert output.getvalue() == ""


def test_sft_shows_loss_and_grpo_shows_reward():
    assert headline({"loss": 0.5, "tokens_per_second": 10}) == ["loss 0.5", "10 tokens/s"]
    assert headline(GRPO_LOGS) == ["reward 1.25", "accuracy 0.75", "length 84.2", "12,346 tokens/s"]
    assert summary({"loss": 0.5, "learning_rate": 1e-6}) == ["loss 0.5", "learning rate 1e-06"]


def test_evaluation_results_are_printed_in_full():
    output = io.StringIO()
    train(Console(file=output), {"eval_loss": 0.25, "eval_runtime": 3.0})
    assert "eval_loss 0.25" in output.getvalue()
