"""The loss of GRPO and of SFT in plain padded PyTorch, as the papers and `docs/options.md` state it.

It shares no code with `src/`, which must give the same loss and gradients: extend it with every option that changes
the loss. Names of options are those of `GRPOConfig`.
"""

from typing import NamedTuple

import torch

DEFAULTS = {
    "num_generations": 4, "max_completion_length": 12, "num_iterations": 1, "temperature": 1.0, "beta": 0.0,
    "epsilon": 0.2, "epsilon_high": None, "delta": None, "loss_type": "dapo", "scale_rewards": "group",
    "importance_sampling_level": "token", "use_bias_correction_kl": True, "mask_truncated_completions": False,
    "vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "token_truncate",
    "vllm_importance_sampling_clip_max": 3.0,
}  # fmt: skip


class Rollout(NamedTuple):
    prompt: list[int]
    completion: list[int]
    sampler_logprobs: list[float]
    reward: float  # NaN: no verdict
    finish_reason: str  # stop, length or error


def token_logprobs(model, documents, temperature=1.0):
    """`(B, L - 1)` log p of each token but the first, and which belong to the second part of each document."""
    length = max(len(prompt) + len(completion) for prompt, completion in documents)
    ids, real, learned = (torch.zeros(len(documents), length, dtype=torch.long) for _ in range(3))
    for row, (prompt, completion) in enumerate(documents):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion])
        real[row, :end], learned[row, len(prompt) : end] = 1, 1
    logits = model(input_ids=ids, attention_mask=real).logits[:, :-1] / temperature
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1), learned[:, 1:].float()


def advantages(rollouts, options):
    """DeepSeekMath (arXiv 2402.03300), section 4.1.2; `none` is Dr. GRPO (arXiv 2503.20783)."""
    rewards = torch.tensor([r.reward for r in rollouts]).view(-1, options["num_generations"])
    groups = {"group": rewards, "batch": rewards.flatten().expand(len(rewards), -1), "none": None}
    groups = groups[options["scale_rewards"]]
    std = 1.0 if groups is None else torch.stack([g[~g.isnan()].std() for g in groups])[:, None] + 1e-4
    return ((rewards - rewards.nanmean(1, keepdim=True)) / std).nan_to_num(0.0).view(-1, 1)


def grpo_loss(logprobs, old, ref, sampler, learned, advantage, rollouts, options):
    """Tensors are `(B, L)`, `advantage` is `(B, 1)`. PPO (arXiv 1707.06347), equation 7; GSPO (2507.18071),
    equation 7; DAPO (2503.14476), equation 8; INTELLECT-2 (2505.07291) for `delta`; DeepSeek-V3.2 (2512.02556)."""
    unlearned = {"error", "length"} if options["mask_truncated_completions"] else {"error"}
    counts = torch.tensor([[float(r.finish_reason not in unlearned)] for r in rollouts])
    learned = learned * counts
    lengths = learned.sum(1, keepdim=True).clamp(min=1)
    log_ratio, gap = (logprobs - old) * learned, (old - sampler) * learned
    if options["importance_sampling_level"] == "sequence":
        log_ratio = log_ratio.sum(1, keepdim=True) / lengths
    ratio, low, high = log_ratio.exp(), options["epsilon"], options["epsilon_high"]
    clipped = ratio.clamp(1 - low, 1 + (low if high is None else high))
    bounded = ratio.clamp(max=options["delta"] or torch.inf)
    loss = -torch.minimum(bounded * advantage, clipped * advantage)
    if options["vllm_importance_sampling_correction"]:
        level, kind = options["vllm_importance_sampling_mode"].split("_")
        weight = (gap.sum(1, keepdim=True) if level == "sequence" else gap).exp()
        most = options["vllm_importance_sampling_clip_max"]
        loss = loss * (weight.clamp(max=most) if kind == "truncate" else weight.where(weight <= most, 0.0))
    kl = (ref - logprobs).exp() - (ref - logprobs) - 1
    loss = loss + options["beta"] * (kl * ratio if options["use_bias_correction_kl"] else kl)
    loss = loss * learned
    if options["loss_type"] == "grpo":
        return (loss.sum(1, keepdim=True) / lengths).sum() / counts.sum()
    if options["loss_type"] == "dr_grpo":
        return loss.sum() / (counts.sum() * options["max_completion_length"])
    return loss.sum() / learned.sum()


def train_grpo(model, reference, steps, learning_rate, **options):
    """Loss and gradients of every optimizer step (SGD) on one round of rollouts, cut into `steps`; `model` is changed."""
    options = DEFAULTS | options
    temperature = options["temperature"]
    documents = [[(r.prompt, r.completion) for r in step] for step in steps]
    all_advantages = advantages([r for step in steps for r in step], options).split([len(step) for step in steps])
    with torch.no_grad():
        old = [token_logprobs(model, step, temperature)[0] for step in documents]
        ref = [token_logprobs(reference, step, temperature)[0] for step in documents]
    for i in [*range(len(steps))] * options["num_iterations"]:
        logprobs, learned = token_logprobs(model, documents[i], temperature)
        sampler = torch.zeros_like(logprobs)
        sampler[learned.bool()] = torch.tensor([x for r in steps[i] for x in r.sampler_logprobs])
        loss = grpo_loss(logprobs, old[i], ref[i], sampler, learned, all_advantages[i], steps[i], options)
        yield loss.item(), step(model, loss, learning_rate)


def sft_loss(model, documents):
    """Mean of -log p over the tokens of the second part of each document, all documents together."""
    logprobs, learned = token_logprobs(model, documents)
    return -(logprobs * learned).sum() / learned.sum()


def step(model, loss, learning_rate):
    """The gradient of every parameter, by name; takes one step of SGD."""
    model.zero_grad()
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= learning_rate * parameter.grad
    return gradients
