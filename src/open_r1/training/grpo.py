"""Group relative policy optimization (DeepSeekMath, arXiv 2402.03300). What one optimizer step computes, in order:

1. Every `max_steps_per_rollout` steps, `_begin_round` takes a round of scored rollouts from its source: groups of
   completions, sampled with the current weights (`rollout_source.py`).
2. Rewards become advantages (`advantages.py`). Completions become the sequences of each step, with a weight for each
   token (`grpo_batches.py`).
3. `_add_logprobs` stores the logprobs to which the loss compares: those of the policy at the beginning of the round,
   if several steps learn from the round, and those of the reference model.
4. `training_step` of `packed_trainer.py` packs the sequences of the step into micro-batches. For each, the model
   computes the logprobs of the sampled tokens and `pack_loss` the loss (`losses.py`), and a backward pass follows.
5. Trainer clips the gradients and steps the optimizer.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from open_r1.configs import GRPOConfig
from open_r1.engine.protocol import Engine
from open_r1.errors import UserError
from open_r1.report.health import Health
from open_r1.training.backends import prepare_frozen
from open_r1.training.batches import step_numbers
from open_r1.training.checkpoints import check_same_settings
from open_r1.training.grpo_batches import StepBatch, check_batch, step_batches
from open_r1.training.logprobs import TokenLogprobs
from open_r1.training.losses import PolicyLoss, PolicyLossConfig, importance_weights, policy_loss
from open_r1.training.packed_trainer import PackedTrainer
from open_r1.training.packing import Pack, TokenSequence
from open_r1.training.policy_weights import PolicyWeights
from open_r1.training.rollout_source import RolloutSource
from open_r1.training.rollout_writer import RolloutWriter
from open_r1.training.rollouts import rollout_rows, with_advantages

logger = logging.getLogger(__name__)

ROUND_SETTINGS = (
    *("temperature", "beta", "loss_type", "scale_rewards", "reward_weights", "max_completion_length"),
    *("mask_truncated_completions", "max_staleness", "sequence_parallel_size"),
)
"""Options that define how rollouts are made. An unfinished round must continue with the same ones."""
TOKEN_MEANS = (
    *("entropy", "kl", "clip_ratio/low", "clip_ratio/high"),
    *("sampling/capped_ratio", "sampling/logprob_difference", "router/other_experts"),
)
"""Metrics that are means over learned tokens."""


class GRPOTrainer(PackedTrainer):
    """`train_dataset` rows have `prompt`, `prompt_ids`, `prompt_text` and whatever columns the rewards read.
    `stop_token_ids` end a completion. `reference` is the frozen initial model when `beta` is not 0 (None with LoRA:
    adapters are turned off instead)."""

    args: GRPOConfig
    sums = ("learned", *TOKEN_MEANS)

    def __init__(
        self,
        model: PreTrainedModel,
        args: GRPOConfig,
        *,
        engine: Engine,
        reward_funcs: Sequence[Callable],
        reward_names: Sequence[str],
        stop_token_ids: Sequence[int],
        reference: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, args, **kwargs)
        disable_dropout(model)
        check_batch(args, len(self.train_dataset), len(reward_names))  # type: ignore[arg-type]
        self.engine = engine
        self.reward_names = list(reward_names)
        self.temperature = args.temperature
        self.source = RolloutSource(
            self.args,
            self.train_dataset,
            engine,
            reward_funcs,
            reward_names,
            stop_token_ids,
            ranks=self.ranks,
            watchdog=self.watchdog,
            update_weights=self._update_weights,
            record=self._record_failed,
        )
        self.reference: Any = None
        if reference is not None:
            self.reference = prepare_frozen(reference, self.accelerator, self.backend)
        self.loss_config = PolicyLossConfig(
            epsilon=args.epsilon,
            epsilon_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
            delta=args.delta,
            level=args.importance_sampling_level,
            beta=args.beta,
            bias_correction_kl=args.use_bias_correction_kl,
            cispo=args.loss_type == "cispo",
        )
        self.batches: list[StepBatch] = []
        """The data of each distinct optimizer step of the current round, on this rank."""
        self.rollout_writer = RolloutWriter(self.recorder, self.ranks)
        self.health = Health()
        self._first_completions: list[str] = []

    def steps_per_epoch(self) -> int:
        """Steps of all complete rounds for which there are enough prompts."""
        return self.source.steps_per_epoch

    def get_train_dataloader(self) -> DataLoader:
        """The numbers of the steps. Prompts come with their round, from the source."""
        return step_numbers(self.steps_per_epoch())

    # A step

    def step_sequences(self, inputs: Any) -> list[TokenSequence]:
        """This rank's sequences of this step. Starts a new round if the last one is used up."""
        number, step_of_round = divmod(self.state.global_step, self.args.max_steps_per_rollout)
        if step_of_round == 0:
            self._begin_round(number)
        return self._batch().sequences

    def step_tokens(self, sequences: list[TokenSequence]) -> int:
        """The number of tokens that were sampled for the step."""
        return self._batch().tokens

    def _batch(self) -> StepBatch:
        """The batch of this step: a round passes over its batches `num_iterations` times."""
        step_of_round = self.state.global_step % self.args.max_steps_per_rollout
        return self.batches[step_of_round % len(self.batches)]

    def _begin_round(self, number: int) -> None:
        """A scored round, its advantages, and from them the sequences of each step with their stored logprobs."""
        collected = self.source.take(number, self.state.global_step + 1)
        for name, value in collected.figures.items():
            self.note(name, value)
        rollouts = with_advantages(collected.round, self.args, self.args.scale_rewards, self.ranks.std)
        source = self.source
        batches = step_batches(
            rollouts, source.slots, source.prompts_per_step, source.steps_per_round, self.args, self.ranks.sum
        )
        self.batches = self._share(batches)
        self._first_completions = [completion.text for _, completion in rollouts.flat()[:3]]
        rows = rollout_rows(rollouts, self.reward_names) + collected.replaced
        self.rollout_writer.write(self.state.global_step + 1, rows)
        self._add_logprobs([sequence for batch in self.batches for sequence in batch.sequences])

    def _share(self, batches: list[StepBatch]) -> list[StepBatch]:
        """Each of the processes that share packs has sampled a part of their data."""
        if self.group is None:
            return batches
        return [StepBatch.join(parts) for parts in zip(*self.group.gather_objects(batches), strict=True)]

    def _add_logprobs(self, sequences: list[TokenSequence]) -> None:
        """Stores logprobs: of the policy if a round feeds more than one step, and of the reference if `beta` is not
        0."""
        if self.args.max_steps_per_rollout > 1:
            old = self.sequence_logprobs(self.model_wrapped, sequences)
            for sequence, logprobs in zip(sequences, old, strict=True):
                sequence.fields.old_logprobs = logprobs
        if self.args.beta != 0:
            for sequence, logprobs in zip(sequences, self._reference_logprobs(sequences), strict=True):
                sequence.fields.ref_logprobs = logprobs

    def _reference_logprobs(self, sequences: list[TokenSequence]) -> list[Tensor]:
        if self.reference is not None:
            # Like the policy, whose forward `prepare` wraps, unless DeepSpeed or FSDP2 compute in their own dtype.
            with nullcontext() if self.is_wrapped else self.accelerator.autocast():
                return self.sequence_logprobs(self.reference, sequences)
        model: Any = self.model
        with model.disable_adapter():
            return self.sequence_logprobs(self.model_wrapped, sequences)

    # Loss

    def pack_loss(self, pack: Pack, out: TokenLogprobs) -> Tensor:
        """Sum of weighted token losses; see `losses.py`."""
        fields = pack.fields
        assert fields.weight is not None and fields.advantage is not None
        where: dict[str, Any] = {"sequence": pack.sequence, "num_sequences": pack.num_sequences}
        old = out.logprobs.detach() if fields.old_logprobs is None else fields.old_logprobs
        corrections = None
        if self.args.vllm_importance_sampling_correction and fields.sampler_logprobs is not None:
            corrections = importance_weights(
                old,
                fields.sampler_logprobs,
                self.args.vllm_importance_sampling_mode,
                self.args.vllm_importance_sampling_clip_max,
                **where,
            )
        loss = policy_loss(
            out.logprobs,
            old,
            fields.advantage,
            self.loss_config,
            importance_weights=corrections,
            ref_logprobs=fields.ref_logprobs,
            **where,
        )
        self._add_figures(pack, out, loss, old)
        return (loss.per_token * fields.weight).sum()

    @torch.no_grad()
    def _add_figures(self, pack: Pack, out: TokenLogprobs, loss: PolicyLoss, old: Tensor) -> None:
        """Sums over the learned tokens of a pack; they stay on the device."""
        assert pack.fields.weight is not None
        learned = (pack.fields.weight > 0).float()
        figures: dict[str, Tensor | None] = {
            "entropy": out.entropies,
            "clip_ratio/low": loss.clipped_low,
            "clip_ratio/high": loss.clipped_high,
            "kl": loss.kl,
        }
        if self.args.vllm_importance_sampling_correction and pack.fields.sampler_logprobs is not None:
            gap = old - pack.fields.sampler_logprobs
            figures["sampling/logprob_difference"] = gap.abs()
            figures["sampling/capped_ratio"] = gap.exp() > self.args.vllm_importance_sampling_clip_max
        if out.experts is not None and pack.fields.experts is not None:
            figures["router/other_experts"] = out.experts != pack.fields.experts
        self.add("learned", learned.sum())
        for name, value in figures.items():
            if value is not None:
                self.add(name, torch.where(learned > 0, value, 0.0).sum())

    # What others see

    def note_sums(self, sums: dict[str, float]) -> None:
        """As in `PackedTrainer`. Metrics per learned token are recorded only if the step learned from a token."""
        super().note_sums(sums)
        known = {"kl": self.args.beta, "router/other_experts": getattr(self.engine, "chosen_experts", None)}
        for name in TOKEN_MEANS:
            if sums["learned"] and known.get(name, True):
                self.note(name, sums[name] / sums["learned"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `PackedTrainer`. Also warns when the run makes no progress (`health.py`)."""
        self.rollout_writer.wait()  # rollouts are on the disk before their metrics and the checkpoint
        super().log(logs, start_time)
        for problem in self.health.check(logs):
            if self.args.stop_on_unhealthy:
                raise UserError(f"stopped at step {self.state.global_step} (stop_on_unhealthy): {problem}")
            if self.is_world_process_zero():
                samples = "\n---\n".join(self._first_completions)
                logger.warning("step %d: %s First completions:\n%s", self.state.global_step, problem, samples)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Mean rewards and lengths of `num_generations_eval` samples for every evaluation prompt."""
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        figures = self.source.evaluate(rows, self.state.global_step)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.watchdog.beat("training")
        return metrics

    def _update_weights(self) -> None:
        self.watchdog.beat("weight update")
        model = self.accelerator.unwrap_model(self.model)
        self.engine.update_weights(PolicyWeights(model, self.engine), self.state.global_step)
        self.engine.wake()

    def _record_failed(self, rows: list[dict[str, Any]]) -> None:
        """Records the completions of a round whose reward failed, before the run ends."""
        self.rollout_writer.write(self.state.global_step + 1, rows)
        self.rollout_writer.wait()

    # Checkpoints

    def resume_settings(self) -> dict[str, Any]:
        """Adds the options that translate a number of steps into a position in a round of rollouts."""
        return super().resume_settings() | {
            "num_generations": self.args.num_generations,
            "steps_per_generation / gradient_accumulation_steps": self.source.steps_per_round,
            "num_iterations": self.args.num_iterations,
            "shuffle_dataset": self.args.shuffle_dataset,
        }

    def checkpoint_state(self) -> dict[str, Any]:
        """Adds the rollouts that later steps still need."""
        state = super().checkpoint_state()
        if self.state.global_step % self.args.max_steps_per_rollout:
            state["batches"] = [[s.state() for s in batch.sequences] for batch in self.batches]
            state["batch_tokens"] = [batch.tokens for batch in self.batches]
        if ahead := self.source.state():
            state["ahead"] = ahead
        return state | ({"round_settings": self._round_settings()} if "batches" in state or ahead else {})

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Restores the number of tokens and the rollouts."""
        super().load_checkpoint_state(state)
        per_rollout = self.args.max_steps_per_rollout
        multiple = f"continue from a checkpoint whose step is a multiple of {per_rollout}."
        if ("batches" in state or "ahead" in state) and state["world_size"] != self.world_size:
            raise UserError(
                f"this checkpoint is in the middle of a round of rollouts of {state['world_size']} processes, but "
                f"now there are {self.world_size}: continue with {state['world_size']}, or from a checkpoint whose "
                f"step is a multiple of {per_rollout}."
            )
        rollouts = "this checkpoint's unfinished round of rollouts"
        check_same_settings(rollouts, state.get("round_settings", {}), self._round_settings(), multiple)
        self.batches = [
            StepBatch([TokenSequence.from_state(s) for s in batch], tokens)
            for batch, tokens in zip(state.get("batches", []), state.get("batch_tokens", []), strict=True)
        ]
        self.source.load_state(state.get("ahead", {}))

    def _round_settings(self) -> dict[str, Any]:
        return {name: getattr(self.args, name) for name in ROUND_SETTINGS}


def disable_dropout(model: nn.Module) -> None:
    """With dropout, the learned distribution would differ from the sampled one (invariant 3)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
