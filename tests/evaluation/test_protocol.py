"""Protocols, and published figures."""

import pytest

from open_r1.errors import UserError
from open_r1.evaluation.protocol import protocol_for
from open_r1.evaluation.reported import REPORTED, reported_for
from open_r1.evaluation.tasks import TASKS


@pytest.mark.parametrize(("task", "samples"), [("aime24", 64), ("math_500", 4), ("gpqa:diamond", 8)])
def test_deepseeks_protocol(task, samples):
    protocol = protocol_for(TASKS[task])
    assert (protocol.num_samples, protocol.temperature, protocol.top_p) == (samples, 0.6, 0.95)
    assert protocol.max_new_tokens == 32768


def test_greedy_and_overrides():
    greedy = protocol_for(TASKS["aime24"], "greedy")
    assert (greedy.num_samples, greedy.temperature, greedy.top_p) == (1, 0.0, 1.0)
    changed = protocol_for(TASKS["aime24"], num_samples=2, temperature=1.0, top_p=1.0, max_new_tokens=9, seed=3)
    assert (
        changed.num_samples,
        changed.temperature,
        changed.top_p,
        changed.max_new_tokens,
        changed.seed,
    ) == (
        *(2, 1.0, 1.0, 9),
        3,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_samples": 0}, "num_samples is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": 0.0}, "num_samples is 64 at temperature 0"),
        ({"name": "mine"}, "protocol is 'mine'"),
    ],
)
def test_what_makes_no_sense_is_refused(options, expected):
    with pytest.raises(UserError, match=expected):
        protocol_for(TASKS["aime24"], **options)


def test_reported_figures_are_found_by_hub_id_and_by_folder():
    for model in ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "/models/deepseek-r1-distill-qwen-7b/"):
        figures = {(f.metric, f.by): f.percent for f in reported_for(model, "aime24")}
        of_deepseek = {("pass@1", "DeepSeek"): 55.5, ("cons@64", "DeepSeek"): 83.3}
        assert figures == of_deepseek | {("pass@1", "open-r1"): 50.8}
    llama = "DeepSeek-R1-Distill-Llama-70B"
    own = {f.task: f.percent for f in REPORTED if (f.model, f.by) == (llama, "open-r1")}
    assert own == {"aime24": 63.0, "math_500": 95.1, "gpqa:diamond": 67.4, "lcb": 55.9}
    assert reported_for("SmolLM2-135M-Instruct", "aime24") == []
    assert all(figure.source and 0 < figure.percent < 100 for figure in REPORTED)
