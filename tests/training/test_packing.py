import numpy as np
import pytest
import torch
from tiny_models import KINDS, MIXERS, documents, gradients, make, plain_logprobs

from open_r1.errors import UserError
from open_r1.modeling import head as head_module
from open_r1.modeling.rope import forget_lengths, length_rule
from open_r1.training import logprobs as logprobs_module
from open_r1.training.logprobs import check_packed_forward
from open_r1.training.packing import TokenSequence, best_fit, build_pack, empty_pack, plan_packs, tensor_of


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], np.int64),
        ([True, False], np.int64),
        ([[1, 2], [3, 4]], np.int64),
        ([0, 1, 1], np.bool_),
        ([0.5, -1.0], np.float32),
        ([-1, 0], np.float32),
        *(([], dtype) for dtype in (np.int64, np.bool_, np.float32)),
    ],
)
def test_a_tensor_has_the_numbers_of_its_list(values, dtype):
    expected = torch.tensor(values, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype)
    torch.testing.assert_close(tensor_of(values, dtype), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.5], np.int64),
        ([1, None], np.int64),
        (["1"], np.int64),
        ([2**63], np.int64),
        ([0.5, None], np.float32),
        (["0.5"], np.float32),
        ([None], np.bool_),
    ],
)
def test_what_is_no_number_of_the_kind_is_refused(values, dtype):
    with pytest.raises(TypeError, match="expected"):
        tensor_of(values, dtype)


def packed_loss(model, sequences, budget, temperature=1.0):
    """Weighted logprob sum over all packs, with gradients accumulated."""
    total = 0.0
    for members in best_fit([len(s) for s in sequences], budget):
        pack = build_pack([sequences[i] for i in members])
        loss = (model(pack=pack, temperature=temperature).logprobs * pack.fields.weight).sum()
        loss.backward()
        total += loss.item()
    return total


@pytest.mark.parametrize("kind", [*KINDS, *MIXERS])
@pytest.mark.parametrize("budget", [16, 40, 10_000])
def test_loss_and_every_gradient_equal_the_padded_computation(kind, budget):
    model = make(kind)
    sequences = documents([2, 9, 3, 30, 12, 12, 5, 17])
    plain = plain_logprobs(model, sequences, temperature=0.7)
    expected = sum((x * s.fields.weight).sum() for x, s in zip(plain, sequences, strict=True))
    expected.backward()
    expected_gradients = gradients(model)
    loss = packed_loss(model, sequences, budget, temperature=0.7)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    packed_gradients = gradients(model)
    assert packed_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-3, atol=2e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("kind", [*KINDS, *MIXERS])
def test_documents_never_see_each_other(kind):
    model = make(kind).eval()
    first, second, other = documents([11, 14, 11])
    with torch.no_grad():
        one = model(pack=build_pack([first, second])).logprobs
        two = model(pack=build_pack([other, second])).logprobs
    learned = int(second.learn.sum())
    torch.testing.assert_close(one[-learned:], two[-learned:], rtol=0, atol=1e-5)
    assert not torch.allclose(one[:-learned], two[:-learned])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_chunked_logprobs_and_activation_checkpointing_change_nothing(monkeypatch, checkpointing):
    model = make("qwen2")
    sequences = documents([20, 33, 8])
    packed_loss(model, sequences, 1000)
    whole = gradients(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    monkeypatch.setattr(head_module, "MAX_LOGITS", 97 * 7)
    packed_loss(model, sequences, 1000)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-5)


def test_entropies_are_those_of_the_sampled_distribution():
    model = make("llama").eval()
    (sequence,) = documents([12])
    out = model(pack=build_pack([sequence]), temperature=0.5)
    logits = model(input_ids=sequence.input_ids[None], use_cache=False).logits[0, :-1][sequence.learn[1:]] / 0.5
    torch.testing.assert_close(
        out.entropies, torch.distributions.Categorical(logits=logits).entropy(), rtol=1e-4, atol=1e-5
    )
    assert not out.entropies.requires_grad


def test_an_empty_pack_gives_every_parameter_a_zero_gradient():
    model = make("llama")
    pack = empty_pack()
    (model(pack=pack).logprobs * pack.fields.weight).sum().backward()
    found = gradients(model)
    assert found.keys() == {n for n, _ in model.named_parameters()}
    assert all((g == 0).all() for g in found.values())


def test_best_fit_fills_bins_to_the_budget_and_loses_nothing():
    lengths = torch.randint(1, 100, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    bins = best_fit(lengths, 128)
    assert sorted(i for b in bins for i in b) == list(range(500))
    assert all(sum(lengths[i] for i in b) <= 128 for b in bins)
    assert len(bins) <= 1.03 * sum(lengths) / 128
    assert best_fit([300, 2, 3], 128) == [[0], [2, 1]]
    assert best_fit([7, 6, 3, 2, 2], 10) == [[0, 2], [1, 3, 4]]  # the fullest bin that has room, not the emptiest
    assert best_fit([], 128) == []


def test_the_first_token_of_a_document_cannot_be_learned():
    with pytest.raises(ValueError, match="first token"):
        build_pack([TokenSequence(torch.tensor([3, 4]), torch.tensor([True, True]))])


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_packs_hold_documents_of_one_side_where_rotary_embeddings_depend_on_length(kind):
    factors = {"original_max_position_embeddings": 12, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0} | (factors if kind == "longrope" else {})
    model = make("llama", rope_parameters=rope, max_position_embeddings=48 if kind == "longrope" else 12)
    sequences = documents([7, 30, 5, 12, 13, 30])
    rule = length_rule(model.config)
    plan = plan_packs(sequences, 1000, side=rule.side)
    assert sorted(map(sorted, plan)) == ([[0, 2, 3], [1, 4, 5]] if kind == "longrope" else [[0, 2, 3], [1, 5], [4]])
    for members in plan:
        packed = model(pack=build_pack([sequences[i] for i in members])).logprobs
        alone = []
        for i in members:
            forget_lengths(model)
            alone += plain_logprobs(model, [sequences[i]])
        torch.testing.assert_close(packed, torch.cat(alone), rtol=0, atol=1e-4)
    check_packed_forward(model)
    mixed = model(pack=build_pack(sequences[:2])).logprobs[: int(sequences[0].learn.sum())]
    assert (mixed - plain_logprobs(model, sequences[:1])[0]).abs().max() > 1e-3


def test_a_model_whose_logits_are_not_understood_is_refused():
    model = make("llama")
    check_packed_forward(model)
    plain = model.__class__.forward

    class Unusual(type(model)):
        def forward(self, *args, **kwargs):
            out = plain(self, *args, **kwargs)
            out.logits = out.logits * 1.5
            return out

    model = make("llama")
    del model.forward
    model.__class__ = Unusual
    logprobs_module.add_logprob_forward(model)
    with pytest.raises(UserError, match="Unusual"):
        check_packed_forward(model)
