"""The loss of GRPO and of SFT in plain padded PyTorch, as the papers and `docs/options.md` state it.

It shares no code with `src/`, which must give the same loss and gradients: extend it with every option that changes
the loss. Options `o` have the names of `GRPOConfig`. Tensors are `(B, L)` for B padded completions.
"""

from typing import NamedTuple

import torch


class Rollout(NamedTuple):
    prompt: list[int]
    completion: list[int]
    sampler_logprobs: list[float]
    reward: float  # NaN: no verdict
    finish_reason: str  # stop, length or error


def token_logprobs(model, documents, temperature=1.0):
    """log p of each token but the first, and which belong to the second part of each document."""
    length = max(len(prompt) + len(completion) for prompt, completion in documents)
    ids, real, learned = (torch.zeros(len(documents), length, dtype=torch.long) for _ in range(3))
    for row, (prompt, completion) in enumerate(documents):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion])
        real[row, :end], learned[row, len(prompt) : end] = 1, 1
    logits = model(input_ids=ids, attention_mask=real).logits[:, :-1] / temperature
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1), learned[:, 1:].float()


def advantages(rollouts, o):
    """DeepSeekMath (arXiv 2402.03300), section 4.1.2; not divided in Dr. GRPO (arXiv 2503.20783)."""
    rewards = torch.tensor([r.reward for r in rollouts]).view(-1, o["num_generations"])
    std = torch.ones(len(rewards), 1)
    if o["scale_rewards"] != "none":
        samples = rewards if o["scale_rewards"] == "group" else rewards.flatten().expand(len(rewards), -1)
        std = torch.stack([s[~s.isnan()].std() for s in samples])[:, None] + 1e-4
    return ((rewards - rewards.nanmean(1, keepdim=True)) / std).nan_to_num(0.0).view(-1, 1)


def grpo_loss(logprobs, old, ref, sampler, learned, advantage, rollouts, o):
    """PPO (arXiv 1707.06347), equation 7; GSPO (2507.18071), equation 7; DAPO (2503.14476), equation 8;
    INTELLECT-2 (2505.07291) for `delta`; DeepSeek-V3.2 (2512.02556) for the KL term; MiniMax-M1 (2506.13585),
    equations 4 and 5, for `cispo`."""
    unlearned = {"error", "length"} if o["mask_truncated_completions"] else {"error"}
    counts = torch.tensor([[float(r.finish_reason not in unlearned)] for r in rollouts])
    learned = learned * counts
    lengths = learned.sum(1, keepdim=True).clamp(min=1)
    log_ratio, gap = (logprobs - old) * learned, (old - sampler) * learned
    if o["importance_sampling_level"] == "sequence":
        log_ratio = log_ratio.sum(1, keepdim=True) / lengths
    ratio, high = log_ratio.exp(), o["epsilon"] if o["epsilon_high"] is None else o["epsilon_high"]
    clipped = ratio.clamp(1 - o["epsilon"], 1 + high)
    loss = -torch.minimum(ratio.clamp(max=o["delta"] or torch.inf) * advantage, clipped * advantage)
    if o["loss_type"] == "cispo":
        loss = -ratio.clamp(max=high).detach() * advantage * logprobs
    if o["vllm_importance_sampling_correction"]:
        level, kind = o["vllm_importance_sampling_mode"].split("_")
        weight = (gap.sum(1, keepdim=True) if level == "sequence" else gap).exp()
        most = o["vllm_importance_sampling_clip_max"]
        loss = loss * (weight.clamp(max=most) if kind == "truncate" else weight.where(weight <= most, 0.0))
    kl = (ref - logprobs).exp() - (ref - logprobs) - 1
    loss = (loss + o["beta"] * (kl * ratio if o["use_bias_correction_kl"] else kl)) * learned
    if o["loss_type"] == "grpo":
        return (loss.sum(1, keepdim=True) / lengths).sum() / counts.sum()
    return loss.sum() / (counts.sum() * o["max_completion_length"] if o["loss_type"] == "dr_grpo" else learned.sum())


def train_grpo(model, reference, steps, learning_rate, o):
    """Loss and gradients of every step of SGD on one round of rollouts, cut into `steps`; `model` is changed."""
    documents = [[(r.prompt, r.completion) for r in step] for step in steps]
    advantage = advantages([r for step in steps for r in step], o).split([len(step) for step in steps])
    with torch.no_grad():
        old, ref = ([token_logprobs(m, step, o["temperature"])[0] for step in documents] for m in (model, reference))
    for i in [*range(len(steps))] * o["num_iterations"]:
        logprobs, learned = token_logprobs(model, documents[i], o["temperature"])
        sampler = torch.zeros_like(logprobs)
        sampler[learned.bool()] = torch.tensor([x for r in steps[i] for x in r.sampler_logprobs])
        loss = grpo_loss(logprobs, old[i], ref[i], sampler, learned, advantage[i], steps[i], o)
        yield loss.item(), sgd_step(model, loss, learning_rate)


def sft_loss(model, documents):
    """Mean of -log p over the tokens of the second part of each document, all documents together."""
    logprobs, learned = token_logprobs(model, documents)
    return -(logprobs * learned).sum() / learned.sum()


def sgd_step(model, loss, learning_rate):
    """The gradient of every parameter, by name."""
    parameters = dict(model.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter -= learning_rate * gradients[name]
    return gradients
