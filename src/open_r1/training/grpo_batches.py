"""Splits a round of rollouts into the data of each optimizer step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from open_r1.configs import GRPOConfig
from open_r1.errors import UserError
from open_r1.training.losses import BatchSize, token_weight
from open_r1.training.packing import TokenSequence
from open_r1.training.rollouts import Rollouts, rollout_sequence


@dataclass
class StepBatch:
    """The data of one process in one optimizer step: `sequences`, without those of groups without signal. `tokens`
    counts all prompts and completions that were sampled for the step."""

    sequences: list[TokenSequence]
    tokens: int

    @staticmethod
    def join(parts: Sequence["StepBatch"]) -> "StepBatch":
        """Merges the batches of several processes."""
        return StepBatch(list(chain(*(part.sequences for part in parts))), sum(part.tokens for part in parts))


def step_batches(
    rollouts: Rollouts,
    slots: Sequence[int],
    prompts_per_step: int,
    num_steps: int,
    args: GRPOConfig,
    global_sum: Callable[[float], float],
) -> list[StepBatch]:
    """This process's batches for `num_steps` optimizer steps.

    `slots` are the positions of its prompts among those of the round, which has `prompts_per_step` per step. Sequences
    get their `weight` and `advantage`. Groups without signal skip the forward pass (if there is no KL term), but count
    in the denominators, which `global_sum` adds up over ranks. Masked completions count in neither.
    """
    groups = args.num_generations
    flat = rollouts.flat()
    lengths = [len(completion.token_ids or []) for _, completion in flat]
    masked, advantages = rollouts.masked.tolist(), rollouts.advantages.tolist()
    signal = carries_signal(rollouts, groups)
    batches: list[StepBatch] = []
    for step in range(num_steps):
        prompts = [p for p, slot in enumerate(slots) if slot // prompts_per_step == step]
        sampled = [i for p in prompts for i in range(p * groups, (p + 1) * groups)]
        tokens = sum(len(flat[i][0]["prompt_ids"]) + lengths[i] for i in sampled)
        counted = [i for i in sampled if not masked[i]]
        size = BatchSize(int(global_sum(len(counted))), int(global_sum(sum(lengths[i] for i in counted))))
        learned = [i for i in counted if args.beta != 0 or signal[i]]
        sequences = [rollout_sequence(*flat[i], group=slots[i // groups]) for i in learned]
        for i, sequence in zip(learned, sequences, strict=True):
            weight = token_weight(args.loss_type, lengths[i], size, args.max_completion_length)
            sequence.fields.weight = torch.full((lengths[i],), weight)
            sequence.fields.advantage = torch.full((lengths[i],), advantages[i])
        batches.append(StepBatch(sequences, tokens))
    return batches


def carries_signal(rollouts: Rollouts, group_size: int) -> list[bool]:
    """For each completion, whether the rewards in its group differ. If not, its advantage and gradient are zero."""
    return rollouts.signal.repeat_interleave(group_size).tolist()


def check_batch(args: GRPOConfig, num_prompts: int, num_rewards: int) -> None:
    """Raises UserError for a batch that does not divide into groups, too few prompts, or misfitting weights."""
    per_device, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    world_size = args.data_parallel_size
    completions = per_device * accumulation * world_size
    size = args.sequence_parallel_size
    unit = "processes" if size == 1 else f"groups of {size} processes"
    if completions % args.num_generations:
        raise UserError(
            f"num_generations is {args.num_generations}, which does not divide the {completions} completions of a "
            f"step (per_device_train_batch_size {per_device} x gradient_accumulation_steps {accumulation} x "
            f"{world_size} {unit}): change one of them so that it does."
        )
    needed = completions // args.num_generations * args.max_steps_per_rollout // args.num_iterations
    if num_prompts < needed:
        raise UserError(
            f"the training set has {num_prompts} prompts, but one round of rollouts takes {needed}: use more data or "
            "lower per_device_train_batch_size, gradient_accumulation_steps or steps_per_generation."
        )
    if args.reward_weights is not None and len(args.reward_weights) != num_rewards:
        raise UserError(f"reward_weights has {len(args.reward_weights)} values for {num_rewards} reward_funcs.")
