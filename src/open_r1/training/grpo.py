"""Group relative policy optimization: sample groups, score them, learn from the differences.

One round of rollouts feeds `max_steps_per_rollout` optimizer steps: `steps_per_generation` cut into distinct
batches, all of them passed over `num_iterations` times.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from open_r1.configs import GRPOConfig
from open_r1.engine.protocol import Completion, Engine, Sampling
from open_r1.errors import UserError
from open_r1.rewards import RewardError
from open_r1.training.batches import StepSampler
from open_r1.training.grpo_batches import check_batch, step_batches
from open_r1.training.health import Health
from open_r1.training.logprobs import TokenLogprobs
from open_r1.training.losses import PolicyLoss, PolicyLossConfig, importance_weights, policy_loss
from open_r1.training.packing import Pack, TokenSequence
from open_r1.training.policy_weights import named_weights
from open_r1.training.rollouts import (
    make_rollouts,
    rollout_metrics,
    rollout_rows,
    sample_groups,
    sampling_seed,
    score_groups,
    start_grading,
    unscored_rows,
)
from open_r1.training.trainer import PackedTrainer

logger = logging.getLogger(__name__)


class GRPOTrainer(PackedTrainer):
    """`train_dataset` rows have `prompt`, `prompt_ids`, `prompt_text` and whatever columns the rewards read.

    `reference` is the frozen initial model when `beta` is not 0 (None with LoRA: adapters are switched off
    instead). `stop_token_ids` end a completion.
    """

    fields = ("weight", "advantage")
    token_means = (
        "entropy",
        "kl",
        "clip_ratio/low",
        "clip_ratio/high",
        "sampling/capped_ratio",
        "sampling/logprob_difference",
    )
    sums = ("learned", *token_means)

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
        if self.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            raise UserError(
                "GRPO with the transformers engine needs the whole model in every process, which FSDP and ZeRO-3 "
                "split: launch with recipes/accelerate_configs/ddp.yaml."
            )
        disable_dropout(model)
        self.grpo = args
        self.engine = engine
        self.reward_funcs = list(reward_funcs)
        self.reward_names = list(reward_names)
        self.reward_weights = args.reward_weights or [1.0] * len(reward_names)
        self.temperature = args.temperature
        self.reference = reference
        if reference is not None:
            self._move_model_to_device(reference, self.args.device)
            reference.eval()
        self.sampling = Sampling(
            n=args.num_generations,
            temperature=args.temperature,
            max_tokens=args.max_completion_length,
            stop_token_ids=tuple(stop_token_ids),
        )
        self.loss_config = PolicyLossConfig(
            epsilon=args.epsilon,
            epsilon_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
            delta=args.delta,
            level=args.importance_sampling_level,
            beta=args.beta,
            bias_correction_kl=args.use_bias_correction_kl,
        )
        self.health = Health()
        self._samples: list[str] = []
        self.batches: list[list[TokenSequence]] = []
        """This rank's sequences of each distinct optimizer step of the current round, without those of groups that
        carry no signal."""
        self.batch_tokens: list[int] = []
        """Prompt and completion tokens of each of these steps, groups without signal included."""
        check_batch(args, len(self.train_dataset), len(reward_names), self.world_size)  # type: ignore[arg-type]

    @property
    def prompts_per_step(self) -> int:
        """Prompts (groups) per optimizer step, over all ranks."""
        return self.args.per_device_train_batch_size * self.world_size // self.grpo.num_generations

    @property
    def steps_per_round(self) -> int:
        """Distinct optimizer steps that one round of rollouts is cut into."""
        return self.grpo.max_steps_per_rollout // self.grpo.num_iterations

    def step_sampler(self) -> StepSampler:
        """Prompts of a whole round, all of them on every rank, given again at each of its steps."""
        return StepSampler(
            len(self.train_dataset),  # type: ignore[arg-type]
            self.prompts_per_step * self.steps_per_round,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            shuffle=self.grpo.shuffle_dataset,
            drop_last=True,
            repeat=self.grpo.max_steps_per_rollout,
        )

    # Rollouts

    def step_sequences(self, rows: list[Mapping[str, Any]]) -> list[TokenSequence]:
        """Begins a new round if the last one is used up; returns this rank's share of this step's batch."""
        position = self.state.global_step % self.grpo.max_steps_per_rollout
        if position == 0:
            self.batches = self._collect(rows)
        return self.batches[position % self.steps_per_round]

    def step_tokens(self, sequences: list[TokenSequence]) -> int:
        """All tokens that were sampled for the step."""
        return self.batch_tokens[self.state.global_step % self.grpo.max_steps_per_rollout % self.steps_per_round]

    def _collect(self, rows: list[Mapping[str, Any]]) -> list[list[TokenSequence]]:
        round_number = self.state.global_step // self.grpo.max_steps_per_rollout
        per_step = self.prompts_per_step
        mine = [i for i in range(len(rows)) if i % per_step % self.world_size == self.rank]
        prompts = [rows[i] for i in mine]
        seeds = [sampling_seed(self.args.seed, round_number, i) for i in mine]

        began = time.perf_counter()
        self.watchdog.beat("weight update")
        self._wake_engine()
        updated = time.perf_counter()
        self.watchdog.beat("generation")

        def on_group(row: Mapping[str, Any], group: list[Completion]) -> None:
            self.watchdog.beat("generation")
            if "accuracy" in self.reward_names:
                start_grading(row, group)

        completions = sample_groups(self.engine, prompts, self.sampling, seeds, on_group)
        self.engine.sleep()
        generated = time.perf_counter()
        step = self.state.global_step + 1
        self.watchdog.beat("scoring")
        try:
            rewards = score_groups(prompts, completions, self.reward_funcs, self.reward_names, step)
        except RewardError:
            self._record(step, unscored_rows(prompts, completions))
            raise
        self.note("time/weight_update", updated - began)
        self.note("time/generation", generated - updated)
        self.note("time/scoring", time.perf_counter() - generated)

        rollouts = make_rollouts(
            prompts,
            completions,
            rewards,
            weights=self.reward_weights,
            num_generations=self.grpo.num_generations,
            scale_rewards=self.grpo.scale_rewards,
            mask_truncated=self.grpo.mask_truncated_completions,
            batch_std=self._global_std,
        )
        for name, value in rollout_metrics(rollouts, self.reward_names, self.global_sum).items():
            self.note(name, value)
        self._samples = [completion.text for _, completion in rollouts.flat()[:3]]
        self._record(step, rollout_rows(rollouts, self.reward_names))
        step_of_prompt = [i // per_step for i in mine]
        batches, self.batch_tokens = step_batches(
            rollouts, step_of_prompt, self.steps_per_round, self.grpo, self.global_sum
        )
        self._add_logprobs([s for batch in batches for s in batch])
        return batches

    def _wake_engine(self) -> None:
        model = self.accelerator.unwrap_model(self.model)
        self.engine.update_weights(named_weights(model), self.state.global_step)
        self.engine.wake()

    def _add_logprobs(self, sequences: list[TokenSequence]) -> None:
        """Stored forwards: of the policy when rollouts feed more than one step, of the reference when `beta`."""
        if self.grpo.max_steps_per_rollout > 1:
            old = self.sequence_logprobs(self.model_wrapped, sequences)
            for sequence, logprobs in zip(sequences, old, strict=True):
                sequence.fields["old_logprobs"] = logprobs
        if self.grpo.beta != 0:
            for sequence, logprobs in zip(sequences, self._reference_logprobs(sequences), strict=True):
                sequence.fields["ref_logprobs"] = logprobs

    def _reference_logprobs(self, sequences: list[TokenSequence]) -> list[Tensor]:
        if self.reference is not None:
            with self.accelerator.autocast():  # like the policy, whose forward `prepare` wraps
                return self.sequence_logprobs(self.reference, sequences)
        model: Any = self.model
        with model.disable_adapter():
            return self.sequence_logprobs(self.model_wrapped, sequences)

    def _record(self, step: int, rows: list[dict[str, Any]]) -> None:
        if self.world_size > 1:
            from accelerate.utils import gather_object

            rows = gather_object(rows)
        if self.recorder is not None:
            self.recorder.log_rollouts(step, rows)

    def _global_std(self, total: Tensor) -> float:
        known = total[~total.isnan()].double()
        count = self.global_sum(float(len(known)))
        mean = self.global_sum(known.sum().item()) / max(count, 1)
        return (self.global_sum((known - mean).square().sum().item()) / max(count - 1, 1)) ** 0.5

    # Loss

    def pack_loss(self, pack: Pack, out: TokenLogprobs) -> Tensor:
        """Sum of weighted token losses; see `losses.py`."""
        fields = pack.fields
        where: dict[str, Any] = {"sequence": pack.sequence, "num_sequences": pack.num_sequences}
        old = fields.get("old_logprobs", out.logprobs.detach())
        corrections = None
        if self.grpo.vllm_importance_sampling_correction and "sampler_logprobs" in fields:
            corrections = importance_weights(
                old,
                fields["sampler_logprobs"],
                self.grpo.vllm_importance_sampling_mode,
                self.grpo.vllm_importance_sampling_clip_max,
                **where,
            )
        loss = policy_loss(
            out.logprobs,
            old,
            fields["advantage"],
            self.loss_config,
            importance_weights=corrections,
            ref_logprobs=fields.get("ref_logprobs"),
            **where,
        )
        self._add_figures(pack, out, loss, old, corrections)
        return (loss.per_token * fields["weight"]).sum()

    @torch.no_grad()
    def _add_figures(
        self, pack: Pack, out: TokenLogprobs, loss: PolicyLoss, old: Tensor, corrections: Tensor | None
    ) -> None:
        """Sums over the learned tokens of a pack, all on the device."""
        learned = (pack.fields["weight"] > 0).float()
        figures: dict[str, Tensor | None] = {
            "entropy": out.entropies,
            "clip_ratio/low": loss.clipped_low,
            "clip_ratio/high": loss.clipped_high,
            "kl": loss.kl,
        }
        if corrections is not None:
            gap = old - pack.fields["sampler_logprobs"]
            figures["sampling/logprob_difference"] = gap.abs()
            figures["sampling/capped_ratio"] = gap.exp() > self.grpo.vllm_importance_sampling_clip_max
        self.add("learned", learned.sum())
        for name, value in figures.items():
            if value is not None:
                self.add(name, (value * learned).sum())

    def note_sums(self, sums: dict[str, float]) -> None:
        """As in `PackedTrainer`; figures per learned token are noted where there was a token to learn from."""
        super().note_sums(sums)
        for name in self.token_means:
            if sums["learned"] and (name != "kl" or self.grpo.beta):
                self.note(name, sums[name] / sums["learned"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `PackedTrainer`, and says in words when the run is going nowhere (`health.py`)."""
        super().log(logs, start_time)
        for problem in self.health.check(logs):
            if self.grpo.stop_on_unhealthy:
                raise UserError(f"stopped at step {self.state.global_step} (stop_on_unhealthy): {problem}")
            if self.is_world_process_zero():
                samples = "\n---\n".join(self._samples)
                logger.warning("step %d: %s First completions:\n%s", self.state.global_step, problem, samples)

    # Evaluation and checkpoints

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Mean rewards and lengths of `num_generations_eval` samples for every evaluation prompt."""
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        mine = range(self.rank, len(rows), self.world_size)
        prompts = [rows[i] for i in mine]
        n = self.grpo.num_generations_eval or self.grpo.num_generations
        sampling = Sampling(**{**self.sampling.__dict__, "n": n})
        seeds = [sampling_seed(self.args.seed, 2**32 - 1, i) for i in mine]
        self.watchdog.beat("evaluation")
        self._wake_engine()
        on_group = lambda row, group: self.watchdog.beat("evaluation")  # noqa: E731
        completions = sample_groups(self.engine, prompts, sampling, seeds, on_group)
        self.engine.sleep()
        rewards = score_groups(prompts, completions, self.reward_funcs, self.reward_names, self.state.global_step)
        rollouts = make_rollouts(
            prompts,
            completions,
            rewards,
            weights=self.reward_weights,
            num_generations=n,
            scale_rewards="none",
            mask_truncated=False,
            batch_std=self._global_std,
        )
        figures = rollout_metrics(rollouts, self.reward_names, self.global_sum)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def checkpoint_state(self) -> dict[str, Any]:
        """With rollouts that still feed coming steps."""
        state = super().checkpoint_state()
        if self.state.global_step % self.grpo.max_steps_per_rollout:
            state["batches"] = [[s.__dict__ for s in batch] for batch in self.batches]
            state["batch_tokens"] = self.batch_tokens
        return state

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Takes back tokens seen and rollouts."""
        super().load_checkpoint_state(state)
        if "batches" in state and state["world_size"] != self.world_size:
            raise UserError(
                f"this checkpoint stands inside a round of rollouts of {state['world_size']} processes, and now there "
                f"are {self.world_size}: continue with {state['world_size']}, or from a checkpoint whose step is a "
                f"multiple of {self.grpo.max_steps_per_rollout}."
            )
        self.batches = [[TokenSequence(**s) for s in batch] for batch in state.get("batches", [])]
        self.batch_tokens = state.get("batch_tokens", [])


def disable_dropout(model: nn.Module) -> None:
    """Dropout would make the learned distribution another one than the sampled one (invariant 3)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
