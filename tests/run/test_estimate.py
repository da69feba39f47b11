"""The shape of a model, and the dry run's estimate of time beside what was measured on GPUs."""

import pytest
from shapes import QWEN_1_5B, QWEN_7B, model, options
from tiny_models import make

from open_r1.run.estimate import estimate_seconds, shape_of
from open_r1.training.model import add_adapters


@pytest.mark.parametrize("kind", ["llama", "llama_tied"])
def test_a_head_that_is_the_embedding_counts_once(kind):
    policy = make(kind)
    shape = shape_of(policy.config, policy, model())
    layers = sum(p.numel() for p in policy.model.layers.parameters()) + shape.width  # and the last norm
    assert shape.parameters - shape.tables == layers


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"target_modules": ["all-linear"]},
        {"target_modules": ["q_proj", "up_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"r": 3},
    ],
)
def test_adapters_are_as_many_as_peft_trains(lora):
    policy = make("llama")
    options_of_model = model(use_peft=True, **{f"lora_{name}": value for name, value in lora.items()})
    found = shape_of(policy.config, policy, options_of_model).adapters
    assert found == add_adapters(policy, options_of_model, seed=0).get_nb_trainable_parameters()[0]


@pytest.mark.parametrize(
    ("shape", "document", "rate"),
    [
        (QWEN_1_5B, 6200, 30.7e3),  # SFT of whole traces
        (QWEN_1_5B, 700, 347e12 / 6 / QWEN_1_5B.parameters),  # a GRPO step, computed tokens alone
        (QWEN_7B, 700, 403e12 / 6 / QWEN_7B.parameters),
    ],
)
def test_the_time_is_near_what_gpus_measured(shape, document, rate):
    """Tokens a second of an H100 with checkpointing: docs/performance.md."""
    assert 1e6 / estimate_seconds(shape, options(), 1_000_000, document) == pytest.approx(rate, rel=0.2)
