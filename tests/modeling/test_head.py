"""The fused head against the plain computation, value and gradients."""

import copy

import pytest
import torch
from tiny_models import documents, gradients, make, plain_logprobs

from open_r1.modeling import head as head_module
from open_r1.modeling.head import LogitRule, head_logprobs, statistics
from open_r1.training.packing import build_pack

RULES = [LogitRule(), LogitRule(scale=0.3, temperature=0.6), LogitRule(cap=2.0, temperature=1.7)]


def inputs(bias, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(23, 8, generator=generator, requires_grad=True)
    weight = torch.randn(31, 8, generator=generator, requires_grad=True)
    offset = torch.randn(31, generator=generator, requires_grad=True) if bias else None
    return hidden, weight, offset, torch.randint(31, (23,), generator=generator)


def plain(hidden, weight, bias, targets, rule):
    x = torch.nn.functional.linear(hidden, weight, bias) * rule.scale
    if rule.cap is not None:
        x = torch.tanh(x / rule.cap) * rule.cap
    distribution = torch.distributions.Categorical(logits=x / rule.temperature)
    return distribution.log_prob(targets), distribution.entropy()


def test_a_small_device_stores_a_sixteenth_of_its_memory(monkeypatch):
    monkeypatch.setattr(head_module, "device_memory", lambda device: 16 * 4 * 31 * 13)
    *tensors, targets = inputs(bias=False)
    logprobs, _ = head_logprobs(*tensors, targets, LogitRule(), recompute=False)
    assert stored_bytes(logprobs) == 4 * 31 * 13


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stored", [None, 0, 13, 23])
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_logprobs_entropies_and_gradients_equal_the_plain_computation(monkeypatch, rule, bias, stored, chunk):
    """Of 23 tokens, the forward pass stores what this many need for the backward pass (None: it may not)."""
    monkeypatch.setattr(head_module, "MAX_LOGITS", 31 * chunk)
    monkeypatch.setattr(head_module, "MAX_STORED", 4 * 31 * (stored or 0))
    monkeypatch.setattr(head_module, "STORED_CHUNKS", 2)
    monkeypatch.setattr(head_module, "COMPUTED_CHUNKS", 3)
    *tensors, targets = inputs(bias)
    expected, entropies = plain(*tensors, targets, rule)
    ours, our_entropies = head_logprobs(*tensors, targets, rule, recompute=stored is None)
    assert stored_bytes(ours) == 4 * 31 * (stored or 0)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(our_entropies, entropies)
    assert not our_entropies.requires_grad
    weights = torch.linspace(-1, 2, len(targets))
    wanted = [t for t in tensors if t is not None]
    for one, other in zip(
        torch.autograd.grad((ours.exp() * weights).sum(), wanted),
        torch.autograd.grad((expected.exp() * weights).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("columns", [31, 32, 320])
@pytest.mark.parametrize("size", [0.01, 1.0, 1e4])
def test_statistics_of_logits_of_any_size(columns, size):
    product = size * torch.randn(50, columns, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(50) % columns
    logprobs, log_z, entropies = (x.double() for x in statistics(product, targets, LogitRule()))
    exact = torch.distributions.Categorical(logits=product.double())
    torch.testing.assert_close(logprobs, exact.log_prob(targets), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_z, product.double().logsumexp(-1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(entropies, exact.entropy(), rtol=1e-6, atol=1e-6 * max(1, size))


def stored_bytes(logprobs):
    """Bytes of what was stored of the logits, after the five other tensors that are saved."""
    return sum(t.nbytes for t in logprobs.grad_fn.saved_tensors[5:])


def test_nothing_is_stored_where_no_gradient_is_wanted(monkeypatch):
    written = []
    monkeypatch.setattr(head_module, "_functions", lambda device: (head_module.statistics, written.append))
    hidden, weight, _, targets = inputs(bias=False)
    with torch.no_grad():
        head_logprobs(hidden, weight, None, targets, LogitRule(), recompute=False)
    head_logprobs(hidden.detach(), weight.detach(), None, targets, LogitRule(), recompute=False)
    assert not written


@pytest.mark.parametrize("recompute", [False, True])
def test_a_pack_without_targets_has_gradients_of_zero(recompute):
    hidden, weight, bias, targets = inputs(bias=True)
    logprobs, entropies = head_logprobs(hidden[:0], weight, bias, targets[:0], LogitRule(), recompute)
    assert logprobs.shape == entropies.shape == (0,)
    for gradient in torch.autograd.grad(logprobs.sum(), (hidden, weight, bias)):
        assert (gradient == 0).all()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("recompute", [False, True])
def test_weights_of_any_size_and_sign_neither_vanish_nor_overflow(scale, dtype, recompute):
    hidden, weight, bias, targets = inputs(bias=True)
    expected, _ = plain(hidden, weight, bias, targets, LogitRule())
    with torch.autocast("cpu", dtype):
        ours, _ = head_logprobs(hidden, weight, bias, targets, LogitRule(), recompute)
    weights = scale * torch.linspace(-1, 2, len(targets))
    pairs = (torch.autograd.grad(x, (hidden, weight, bias), weights) for x in (ours, expected))
    for one, other in zip(*pairs, strict=True):
        assert (one - other).norm() <= 0.02 * other.norm()


SPREADS = {
    "equal": lambda tokens: torch.full((tokens,), -1 / tokens),
    "by document": lambda tokens: torch.randn(tokens // 10).repeat_interleave(10),
    "by token": lambda tokens: torch.randn(tokens),
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("recompute", [False, True])
def test_bfloat16_gradients_are_as_near_to_float64_as_with_the_weighted_rows_rounded_once(spread, dtype, recompute):
    """The other way to do it: autograd's, which rounds each logit's gradient with its token's weight, then multiplies.
    `dtype` is that of weights and hidden states."""
    torch.manual_seed(0)
    hidden = torch.randn(800, 64).to(dtype).requires_grad_()
    weight = (0.3 * torch.randn(1024, 64)).to(dtype).requires_grad_()
    targets = torch.distributions.Categorical(logits=hidden.detach().float() @ weight.detach().float().t()).sample()
    weights = SPREADS[spread](len(targets))
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, _ = head_logprobs(hidden, weight, None, targets, LogitRule(), recompute)
    ours = torch.autograd.grad(logprobs, (hidden, weight), weights)
    h, w = (x.detach().bfloat16().float() for x in (hidden, weight))
    rows = (
        ((torch.nn.functional.one_hot(targets, 1024) - (h @ w.t()).softmax(-1)) * weights[:, None]).bfloat16().float()
    )
    others = (rows @ w).bfloat16(), (rows.t() @ h).to(dtype)
    h, w = (x.detach().double().requires_grad_() for x in (hidden, weight))
    right, _ = plain(h, w, None, targets, LogitRule())
    wanted = torch.autograd.grad(right, (h, w), weights.to(right.dtype))
    for one, other, exact in zip(ours, others, wanted, strict=True):
        assert (one - exact).norm() <= 1.2 * (other - exact).norm()
        assert (one - exact).norm() <= 0.01 * exact.norm()


def test_autocast_rounds_the_factors_of_the_product_and_not_the_logits(monkeypatch):
    monkeypatch.setattr(head_module, "MAX_LOGITS", 31 * 7)
    hidden, weight, _, targets = inputs(bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        ours, _ = head_logprobs(hidden, weight, None, targets, LogitRule())
    expected, _ = plain(hidden.bfloat16().float(), weight.bfloat16().float(), None, targets, LogitRule())
    torch.testing.assert_close(ours, expected)
    ours_grad, expected_grad = (torch.autograd.grad(x.sum(), (hidden, weight)) for x in (ours, expected))
    for one, other in zip(ours_grad, expected_grad, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.01 * other.norm()


@pytest.mark.parametrize("recompute", [False, True])
def test_a_frozen_head_costs_no_weight_gradient(recompute):
    hidden, weight, _, targets = inputs(bias=False)
    logprobs, _ = head_logprobs(hidden, weight.detach(), None, targets, LogitRule(), recompute)
    logprobs.sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


@pytest.mark.parametrize("options", [{"target_modules": ["q_proj", "lm_head"]}, {"modules_to_save": ["lm_head"]}])
def test_adapters_on_the_head_learn(monkeypatch, options):
    peft = pytest.importorskip("peft")
    model = make("llama")
    lora = peft.LoraConfig(**{"target_modules": ["q_proj"], **options})
    adapted = peft.get_peft_model(model, lora).train()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    monkeypatch.setattr(head_module, "MAX_LOGITS", 97 * 7)
    sequences = documents([20, 33, 8])
    expected = torch.cat(plain_logprobs(adapted, sequences))
    expected.sum().backward()
    expected_gradients = gradients(adapted)
    assert any("lm_head" in name for name in expected_gradients)
    ours = adapted(pack=build_pack(sequences)).logprobs
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    ours.sum().backward()
    for name, gradient in gradients(adapted).items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-3, atol=1e-4)


def test_a_copy_of_the_head_answers_with_its_own_weights():
    model = make("qwen2")
    twin = copy.deepcopy(model.get_output_embeddings())
    with torch.no_grad():
        twin.weight.zero_()
    hidden = torch.randn(3, 32)
    assert (twin(hidden) == 0).all()
    logprobs, entropies = twin(hidden, targets=torch.tensor([1, 2, 3]), rule=LogitRule())
    torch.testing.assert_close(logprobs, -entropies)
    assert (model.get_output_embeddings()(hidden) != 0).any()


@pytest.mark.gpu
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_the_compiled_head_equals_the_plain_one_on_cuda(monkeypatch, rule, recompute):
    monkeypatch.setattr(head_module, "MAX_LOGITS_COMPILED", 31 * 7)
    hidden, weight, _, targets = (x if x is None else x.detach().cuda() for x in inputs(bias=False))
    hidden.requires_grad_()
    weight.requires_grad_()
    ours, entropies = head_logprobs(hidden, weight, None, targets, rule, recompute)
    expected, expected_entropies = plain(hidden, weight, None, targets, rule)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entropies, expected_entropies, rtol=1e-4, atol=1e-4)
    pairs = (torch.autograd.grad(x.sum(), (hidden, weight)) for x in (ours, expected))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("stored", [None, 500, 4000, 6000])
def test_a_real_vocabulary_in_bfloat16_on_cuda(monkeypatch, stored):
    """Several chunks, the last of them short; what is right comes from float64. See above for `stored`."""
    monkeypatch.setattr(head_module, "MAX_LOGITS_COMPILED", 49152 * 700)
    monkeypatch.setattr(head_module, "MAX_STORED", 2 * 49152 * (stored or 0))
    monkeypatch.setattr(head_module, "STORED_CHUNKS", 3)
    torch.manual_seed(0)
    weight = (0.1 * torch.randn(49152, 576)).cuda().bfloat16().requires_grad_()
    hidden = torch.randn(6000, 576).cuda().bfloat16().requires_grad_()
    targets = torch.randint(49152, (6000,)).cuda()
    logprobs, entropies = head_logprobs(hidden, weight, None, targets, LogitRule(), recompute=stored is None)
    ours = torch.autograd.grad(logprobs.sum(), (hidden, weight))
    wanted = [torch.zeros_like(x, dtype=torch.float64) for x in (hidden, weight)]
    for part in torch.arange(6000, device="cuda").split(500):
        h, w = (x.detach().double().requires_grad_() for x in (hidden[part], weight))
        all_logprobs = (h @ w.t()).log_softmax(-1)
        expected = all_logprobs.gather(-1, targets[part, None]).squeeze(-1)
        torch.testing.assert_close(logprobs[part].double(), expected, rtol=0, atol=1e-3)
        expected_entropies = -(all_logprobs.exp() * all_logprobs).sum(-1)
        torch.testing.assert_close(entropies[part].double(), expected_entropies, rtol=0, atol=1e-3)
        by_hidden, by_weight = torch.autograd.grad(expected.sum(), (h, w))
        wanted[0][part] = by_hidden
        wanted[1] += by_weight
    for found, right in zip(ours, wanted, strict=True):
        assert (found - right).norm() <= 0.01 * right.norm()
