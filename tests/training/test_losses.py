import math

import pytest
import torch

from open_r1.training.advantages import combine_rewards, group_advantages
from open_r1.training.losses import (
    BatchSize,
    PolicyLossConfig,
    importance_weights,
    policy_loss,
    sequence_mean,
    token_weight,
)

ONE = {"sequence": torch.zeros(1, dtype=torch.long), "num_sequences": 1}


def one_token(ratio, advantage, **options):
    """Loss and gradient with respect to the logprob of a single token."""
    logprob = torch.tensor([math.log(ratio)], requires_grad=True)
    loss = policy_loss(logprob, torch.zeros(1), torch.tensor([advantage]), PolicyLossConfig(**options), **ONE)
    loss.per_token.sum().backward()
    return loss.per_token.item(), logprob.grad.item()


def test_on_policy_the_gradient_is_the_policy_gradient():
    logprobs = torch.tensor([-0.3, -2.0, -1.1], requires_grad=True)
    advantages = torch.tensor([1.5, -0.5, 2.0])
    loss = policy_loss(
        logprobs,
        logprobs.detach(),
        advantages,
        PolicyLossConfig(),
        sequence=torch.tensor([0, 0, 1]),
        num_sequences=2,
    )
    loss.per_token.sum().backward()
    torch.testing.assert_close(logprobs.grad, -advantages)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 1.0, -1.1, -1.1),  # inside the range
        (1.5, 1.0, -1.28, 0.0),  # a gain beyond 1 + epsilon_high is not rewarded
        (0.5, -1.0, 0.8, 0.0),  # nor a loss below 1 - epsilon
        (0.5, 1.0, -0.5, -0.5),  # but a bad move is always taken back
        (1.5, -1.0, 1.5, 1.5),
    ],
)
def test_clipping_is_pessimistic(ratio, advantage, loss, gradient):
    found = one_token(ratio, advantage, epsilon=0.2, epsilon_high=0.28)
    assert found == pytest.approx((loss, gradient), abs=1e-6)


@pytest.mark.parametrize(("ratio", "weight"), [(0.1, 0.1), (1.0, 1.0), (4.9, 4.9), (9.0, 5.0)])
@pytest.mark.parametrize("advantage", [1.0, -2.0])
def test_cispo_bounds_the_weight_of_a_token_and_leaves_none_out(ratio, weight, advantage):
    loss, gradient = one_token(ratio, advantage, cispo=True, epsilon_high=5.0)
    assert gradient == pytest.approx(-weight * advantage, rel=1e-5)
    assert loss == pytest.approx(-weight * advantage * math.log(ratio), rel=1e-5)


def test_delta_bounds_what_a_negative_advantage_can_do():
    assert one_token(8.0, -1.0) == pytest.approx((8.0, 8.0))
    assert one_token(8.0, -1.0, delta=4.0) == pytest.approx((4.0, 0.0))


def test_sequence_level_clips_the_geometric_mean():
    logprobs = torch.tensor([0.3, -0.1, 0.0, 0.5], requires_grad=True)
    sequence = torch.tensor([0, 0, 1, 1])
    config = PolicyLossConfig(epsilon=1.0, epsilon_high=1.0, level="sequence")
    loss = policy_loss(logprobs, torch.zeros(4), torch.ones(4), config, sequence=sequence, num_sequences=2)
    expected = torch.tensor([math.exp(0.1)] * 2 + [math.exp(0.25)] * 2)
    torch.testing.assert_close(loss.per_token, -expected)


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_importance_weights_are_finite_for_any_logprob(mode):
    values = [0.0, -1.0, -95.0, -1e30, -3.4e38, -math.inf]
    old, sampler = torch.tensor([(a, b) for a in values for b in values]).T
    for count in (1, len(old)):  # all tokens in one completion, or one each
        sequence = torch.arange(len(old)) % count
        weights = importance_weights(old, sampler, mode, 3.0, sequence=sequence, num_sequences=count)
        assert weights.isfinite().all() and (weights >= 0).all() and (weights <= 3).all()
    assert weights[(old == sampler) & old.isfinite()].eq(1).all()
    assert weights[old == -math.inf].eq(0).all()
    assert weights[(old == -1) & (sampler == -95)].item() == (3.0 if mode.endswith("truncate") else 0.0)


def test_the_loss_is_finite_where_a_ratio_overflows():
    logprobs = torch.tensor([-0.1, -0.1, -0.1, -200.0], requires_grad=True)
    old = torch.tensor([-200.0, -200.0, -200.0, -200.0])
    loss = policy_loss(
        logprobs,
        old,
        torch.tensor([0.0, 1.0, -1.0, 0.0]),
        PolicyLossConfig(beta=0.1),
        sequence=torch.arange(4),
        num_sequences=4,
        importance_weights=torch.zeros(4),
        ref_logprobs=torch.tensor([-0.1, -0.1, -0.1, -0.1]),
    )
    loss.per_token.sum().backward()
    assert loss.per_token.isfinite().all() and logprobs.grad.isfinite().all()


@pytest.mark.parametrize("corrected", [False, True])
def test_the_kl_estimate_is_never_negative_and_its_gradient_unbiased_when_corrected(corrected):
    """Over all outcomes, E[k3] is the KL divergence; its gradient equals that of the KL only with the correction."""
    torch.manual_seed(0)
    logits, reference = torch.randn(5, requires_grad=True), torch.randn(5).log_softmax(-1)
    log_p = logits.log_softmax(-1)
    loss = policy_loss(
        log_p,
        log_p.detach(),
        torch.zeros(5),
        PolicyLossConfig(beta=1.0, bias_correction_kl=corrected),
        sequence=torch.arange(5),
        num_sequences=5,
        ref_logprobs=reference,
    )
    assert (loss.kl >= 0).all()
    exact = (log_p.exp() * (log_p - reference)).sum()
    assert (log_p.exp() * loss.kl).sum().item() == pytest.approx(exact.item(), abs=1e-6)
    (gradient,) = torch.autograd.grad((log_p.exp().detach() * loss.per_token).sum(), logits, retain_graph=True)
    (exact_gradient,) = torch.autograd.grad(exact, logits)
    assert torch.allclose(gradient, exact_gradient, atol=1e-6) == corrected


def test_importance_weights_truncate_or_mask_tokens_or_sequences():
    old, sampler = torch.log(torch.tensor([1.0, 6.0, 2.0, 2.5])), torch.zeros(4)
    where = {"sequence": torch.tensor([0, 0, 1, 1]), "num_sequences": 2}

    def weights(mode):
        return importance_weights(old, sampler, mode, 4.0, **where).tolist()

    assert weights("token_truncate") == pytest.approx([1, 4, 2, 2.5])
    assert weights("token_mask") == pytest.approx([1, 0, 2, 2.5])
    assert weights("sequence_truncate") == pytest.approx([4, 4, 4, 4])
    assert weights("sequence_mask") == pytest.approx([0, 0, 0, 0])


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        ("grpo", (1 / 2) * (3.0 + (1.0 + 2.0 + 3.0) / 3)),
        ("bnpo", (3.0 + 1.0 + 2.0 + 3.0) / 4),
        ("dapo", (3.0 + 1.0 + 2.0 + 3.0) / 4),
        ("dr_grpo", (3.0 + 1.0 + 2.0 + 3.0) / (2 * 10)),
    ],
)
def test_token_weights_give_each_loss_its_normalization(loss_type, expected):
    completions = [[3.0], [1.0, 2.0, 3.0]]
    size = BatchSize(2, 4)
    total = sum(sum(c) * token_weight(loss_type, len(c), size, 10) for c in completions)
    assert total == pytest.approx(expected)


def test_sequence_mean_survives_sequences_without_tokens():
    means = sequence_mean(torch.tensor([1.0, 3.0]), torch.tensor([2, 2]), 3)
    assert means.tolist() == [0, 0, 2]


def test_advantages_are_relative_to_the_group():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.3, 0.3, 0.3, 0.3])
    advantages, signal = group_advantages(rewards, 4, "group")
    std = torch.tensor([1.0, 0.0, 0.0, 1.0]).std().item()
    assert advantages[:4].tolist() == pytest.approx(
        [0.5 / (std + 1e-4)] * 1 + [-0.5 / (std + 1e-4)] * 2 + [0.5 / (std + 1e-4)]
    )
    assert advantages[4:].tolist() == [0, 0, 0, 0]
    assert signal.tolist() == [True, False]
    assert group_advantages(rewards, 4, "none")[0][:4].tolist() == pytest.approx([0.5, -0.5, -0.5, 0.5])
    assert group_advantages(rewards, 4, "batch", 0.5)[0][0].item() == pytest.approx(0.5 / 0.5001)


def test_a_completion_without_verdict_neither_learns_nor_moves_the_baseline():
    nan = float("nan")
    rewards = combine_rewards(torch.tensor([[1.0, 0.5], [0.0, nan], [nan, nan]]), torch.tensor([1.0, 2.0]))
    assert rewards[:2].tolist() == [2.0, 0.0]
    assert rewards[2].isnan()
    advantages, signal = group_advantages(rewards, 3, "none")
    assert advantages.tolist() == [1.0, -1.0, 0.0]
    assert signal.tolist() == [True]
    assert group_advantages(torch.tensor([nan, nan]), 2, "group")[1].tolist() == [False]
