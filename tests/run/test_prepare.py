"""Completions that could cross the length at which rotary embeddings change are refused before training."""

import pytest
from datasets import Dataset
from transformers import LlamaConfig, Phi3Config

from open_r1.errors import UserError
from open_r1.modeling.rope import length_rule
from open_r1.run.prepare import check_one_side

FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
LONGROPE = Phi3Config(
    hidden_size=32,
    num_attention_heads=4,
    max_position_embeddings=64,
    original_max_position_embeddings=16,
    rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16, **FACTORS},
)
DYNAMIC = LlamaConfig(
    max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
)


def prompts(*lengths):
    return Dataset.from_list([{"prompt_ids": [5] * n} for n in lengths])


@pytest.mark.parametrize(
    ("config", "lengths", "most"),
    [(LONGROPE, (4, 6), 10), (DYNAMIC, (4, 6), 10), (LONGROPE, (16, 20), 40), (LlamaConfig(), (4, 6), 100_000)],
)
def test_completions_on_one_side_may_be_trained_on(config, lengths, most):
    check_one_side(prompts(*lengths), length_rule(config), most)


@pytest.mark.parametrize(
    ("config", "lengths", "most"),
    [(LONGROPE, (4, 6), 11), (DYNAMIC, (4, 6), 11), (LONGROPE, (15, 20), 40), (DYNAMIC, (20, 20), 4)],
)
def test_completions_that_could_cross_are_refused_with_the_limit(config, lengths, most):
    longest = max(lengths)
    limit = max(16 - longest, 0)
    said = f"max_completion_length is {most}, and the longest prompt has {longest} tokens.*original context of 16"
    with pytest.raises(UserError, match=f"{said}.*at most {limit}"):
        check_one_side(prompts(*lengths), length_rule(config), most)
