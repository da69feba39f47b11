"""A prompt that goes through the model once for all its completions: the same loss and gradients (invariant 1)."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import KINDS, VOCAB, gradients, make, plain_logprobs

from open_r1.training.packing import TokenFields, TokenSequence, build_pack, plan_packs

SHAPES = [(9, [4, 17, 1, 30]), (3, [12, 12]), (20, [7]), (5, [2, 0, 8]), (1, [3, 6])]
"""Prompt length, and the lengths of its completions: one is alone, one is empty."""


def grouped(shapes=SHAPES, vocab=VOCAB, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        return torch.randint(3, vocab, (n,), generator=generator)

    sequences = []
    for group, (prompt_length, lengths) in enumerate(shapes):
        prompt = draw(prompt_length)
        for n in lengths:
            learn = torch.arange(prompt_length + n) >= prompt_length
            fields = TokenFields(weight=torch.randn(n, generator=generator))
            sequences.append(TokenSequence(torch.cat([prompt, draw(n)]), learn, fields, group, prompt_length))
    return sequences


def shared_loss(model, sequences, budget, device="cpu", share=True):
    total = 0.0
    for members in plan_packs(sequences, budget, share):
        pack = build_pack([sequences[i] for i in members], device, share)
        loss = (model(pack=pack, temperature=0.7).logprobs * pack.fields.weight).sum()
        loss.backward()
        total += loss.item()
    return total, gradients(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [1, 45, 10_000])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_every_gradient_equal_the_padded_computation(kind, budget, checkpointing):
    model = make(kind)
    sequences = grouped()
    plain = plain_logprobs(model, sequences, temperature=0.7)
    expected = sum((x * s.fields.weight).sum() for x, s in zip(plain, sequences, strict=True))
    expected.backward()
    expected_gradients = gradients(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss, ours = shared_loss(model, sequences, budget)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert ours.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=2e-5 * gradient.abs().max().item())


def test_a_shared_prompt_is_there_once_and_completions_never_see_each_other():
    model = make("llama").eval()
    one = grouped([(6, [5, 8])])
    other = [
        one[0],
        TokenSequence(torch.cat([one[1].input_ids[:6], torch.full((8,), 7)]), one[1].learn, TokenFields(), 0, 6),
    ]
    packs = [
        build_pack([TokenSequence(s.input_ids, s.learn, TokenFields(), 0, 6) for s in both]) for both in (one, other)
    ]
    assert packs[0].num_tokens == 6 + 5 + 8
    assert packs[0].sequence.tolist() == [0] * 5 + [1] * 8
    with torch.no_grad():
        first, second = (model(pack=pack).logprobs for pack in packs)
    torch.testing.assert_close(first[:5], second[:5], rtol=0, atol=1e-6)
    assert not torch.allclose(first[5:], second[5:])


@given(
    shapes=st.lists(st.tuples(st.integers(1, 6), st.lists(st.integers(0, 6), min_size=1, max_size=4)), min_size=1),
    share=st.booleans(),
    data=st.data(),
)
def test_every_predictor_sees_the_tokens_before_its_target(shapes, share, data):
    sequences = data.draw(st.permutations(grouped(shapes)))
    pack = build_pack(sequences, share=share)
    ids, positions, layout = pack.input_ids[0], pack.position_ids[0], pack.layout
    starts = [sum(layout.lengths[:i]) for i in range(len(layout.lengths) + 1)]
    documents = [list(range(*ends)) for ends in itertools.pairwise(starts)]
    seen = [[*(documents[p] if p is not None else []), *d] for p, d in zip(layout.parents, documents, strict=True)]
    expected = [(i, at) for i, s in enumerate(sequences) for at in s.learn.nonzero().flatten().tolist()]
    assert pack.sequence.tolist() == [i for i, _ in expected]
    for (i, at), predictor, target in zip(expected, pack.predictors.tolist(), pack.targets.tolist(), strict=True):
        (tokens,) = [keys for keys, d in zip(seen, documents, strict=True) if predictor in d]
        before = tokens[: tokens.index(predictor) + 1]
        assert ids[before].tolist() == sequences[i].input_ids[:at].tolist()
        assert positions[before].tolist() == list(range(at))
        assert target == sequences[i].input_ids[at]
    weights = torch.cat([s.fields.weight for s in sequences])
    torch.testing.assert_close(pack.fields.weight, weights, rtol=0, atol=0)
    if share:
        assert layout.key_index.tolist() == [token for d in seen for token in d]
        assert layout.cu_seqlens_k.tolist() == [0, *itertools.accumulate(len(d) for d in seen)]
    assert layout.cu_seqlens_q.tolist() == starts


def test_packs_hold_whole_groups_within_the_budget_and_split_only_what_is_larger():
    sequences = grouped([(10, [20] * 4), (10, [30] * 10), (50, [100])])
    plan = plan_packs(sequences, 120)
    assert sorted(i for members in plan for i in members) == list(range(len(sequences)))
    sizes = [build_pack([sequences[i] for i in members]).num_tokens for members in plan]
    assert all(size <= 120 for size in sizes[1:])
    assert sizes[0] == 150
    assert sorted(len(members) for members in plan if members[0] in range(4, 14)) == [1, 3, 3, 3]
    assert [0, 1, 2, 3] in plan
    assert plan_packs(grouped([(50, [10, 10])] * 2), 140) == [[0, 1, 2, 3]]
    whole = plan_packs(sequences, 120, share=False)
    assert sum(len(members) for members in whole) == len(sequences)
    assert all(sum(len(sequences[i]) for i in members) <= 120 for members in whole[1:])


def test_a_shared_token_cannot_be_learned():
    ids = torch.tensor([3, 4, 5])
    learn = torch.tensor([False, True, True])
    with pytest.raises(ValueError, match="shared prompt"):
        build_pack([TokenSequence(ids, learn, group=0, shared=2)] * 2)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral_window", "gemma3_window"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_sharing_in_bfloat16_is_as_close_to_float32_as_not_sharing(kind, checkpointing):
    model = make(kind).cuda()
    sequences = grouped([(40, [100, 60, 128, 7]), (129, [64, 1, 200]), (3, [50])])
    _, exact = shared_loss(model, sequences, 10_000, "cuda", share=False)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    with torch.autocast("cuda", torch.bfloat16):
        _, alone = shared_loss(model, sequences, 10_000, "cuda", share=False)
        _, shared = shared_loss(model, sequences, 10_000, "cuda", share=True)
    for name, gradient in exact.items():
        scale = gradient.norm()
        error, usual = ((g[name] - gradient).norm() / scale for g in (shared, alone))
        assert error <= max(1.5 * usual, 0.02), name
