"""Group relative policy optimization: sample groups, score them (`rollout_trainer.py`), learn from the differences."""

import logging
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from open_r1.configs import GRPOConfig
from open_r1.errors import UserError
from open_r1.training.backends import prepare_frozen
from open_r1.training.health import Health
from open_r1.training.logprobs import TokenLogprobs
from open_r1.training.losses import PolicyLoss, PolicyLossConfig, importance_weights, policy_loss
from open_r1.training.packing import Pack, TokenSequence
from open_r1.training.rollout_trainer import RolloutTrainer

logger = logging.getLogger(__name__)


class GRPOTrainer(RolloutTrainer):
    """Learns from what `RolloutTrainer` collects, whose arguments it takes. `reference` is the frozen initial model
    when `beta` is not 0 (None with LoRA: adapters are switched off instead).
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
        reference: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, args, **kwargs)
        disable_dropout(model)
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
        )
        self.health = Health()

    # Rollouts

    def _collect(self, number: int) -> list[list[TokenSequence]]:
        batches = super()._collect(number)
        self._add_logprobs([s for batch in batches for s in batch])
        return batches

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
                self.add(name, torch.where(learned > 0, value, 0.0).sum())

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


def disable_dropout(model: nn.Module) -> None:
    """Dropout would make the learned distribution another one than the sampled one (invariant 3)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
