import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from open_r1.engine.native.sampler import sample_torch
from open_r1.engine.native.slots import FULL, LIVE, STOPPED, Slots
from open_r1.engine.protocol import Sampling
from open_r1.engine.transformers_engine import logits_warpers, sample
from open_r1.modeling.head import LogitRule


def slots_of(count, width=4, **options):
    slots = Slots.empty(count, width, 1, torch.device("cpu"))
    values = {"temperature": 1.0, "top_p": 1.0, "limit": width, "status": LIVE, **options}
    for name, value in values.items():
        getattr(slots, name)[:-1] = value
    return slots


@settings(max_examples=60, deadline=None)
@given(
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 500]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    min_p=st.sampled_from([0.0, 0.05, 0.6]),
    seed=st.integers(0, 1000),
)
def test_tokens_and_logprobs_are_those_of_transformers_warpers(temperature, top_k, top_p, min_p, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(64, 50, generator=generator)
    slots = slots_of(64, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    slots.uniforms[:-1] = torch.rand(64, 4, generator=generator)
    rows = torch.randperm(64, generator=generator)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    token, logprob = sample(logits, slots.uniforms[rows, 0], logits_warpers(sampling), greedy=temperature == 0)
    sample_torch(logits, slots, rows, LogitRule(), truncate=True)
    assert slots.tokens[rows, 0].tolist() == token.tolist()
    torch.testing.assert_close(slots.logprobs[rows, 0], logprob, rtol=0, atol=1e-5)


def test_frequencies_are_probabilities():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -30.0]])
    slots = slots_of(4000)
    slots.uniforms[:-1, 0] = (torch.arange(4000) + 0.5) / 4000
    sample_torch(logits.repeat(4000, 1), slots, torch.arange(4000), LogitRule(0.5, None), truncate=False)
    frequency = torch.bincount(slots.token[:-1], minlength=5) / 4000
    torch.testing.assert_close(frequency, (logits[0] / 2).softmax(-1), rtol=0, atol=5e-4)


def test_rows_end_by_stop_token_and_limit_and_then_stay_as_they_are():
    logits = torch.full((3, 5), -1e9)
    logits[torch.arange(3), torch.tensor([1, 2, 3])] = 0
    slots = slots_of(3, width=2)
    slots.stops[1, 3] = 2
    for _ in range(3):
        sample_torch(logits, slots, torch.arange(3), LogitRule(), truncate=False)
    assert slots.status.tolist() == [FULL, STOPPED, FULL, FULL]
    assert slots.sampled.tolist() == [2, 1, 2, 0]
    assert slots.length.tolist() == [2, 1, 2, 0]
    assert slots.tokens.tolist() == [[1, 1], [2, 0], [3, 3], [0, 0]]


@pytest.mark.parametrize("truncate", [False, True])
def test_a_token_without_probability_is_never_drawn(truncate):
    slots = slots_of(1)
    slots.uniforms[0] = 1 - 2**-24
    sample_torch(torch.tensor([[0.0, 0.0, -torch.inf]]), slots, torch.tensor([0]), LogitRule(), truncate)
    assert slots.token[0] == 1
