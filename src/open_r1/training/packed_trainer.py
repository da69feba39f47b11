"""The part of training that SFT and GRPO share: `transformers.Trainer` with packed micro-batches.

Trainer sees one batch per optimizer step. `training_step` splits it into packs by a token budget, runs forward and
backward on each, and synchronizes gradients on the last. Optimizer, schedule, checkpoints, callbacks and trackers
are Trainer's own.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import get_model_param_count

from open_r1.configs import TrainConfig
from open_r1.errors import Interrupted, UserError
from open_r1.internals.transformers import reset_loss
from open_r1.modeling.architectures import can_share_prompts
from open_r1.modeling.rope import length_rule
from open_r1.modeling.routers import RouterStatistics
from open_r1.modeling.sequence_parallel import sequence_group
from open_r1.report.recorder import RunRecorder, is_metrics
from open_r1.training import backends
from open_r1.training.activations import activation_callbacks
from open_r1.training.arguments import one_batch_per_step
from open_r1.training.batches import total_steps
from open_r1.training.checkpoints import Checkpointer
from open_r1.training.interruption import StopSignals
from open_r1.training.logprobs import TokenLogprobs, check_packed_forward
from open_r1.training.memory import objects_frozen, out_of_memory, peak_gib
from open_r1.training.packing import Pack, TokenSequence, build_pack, empty_pack, no_sides, plan_packs
from open_r1.training.ranks import Ranks
from open_r1.training.watchdog import Watchdog


class PackedTrainer(Trainer):
    """Base of `SFTTrainer` and `GRPOTrainer`, which define what a batch is and what its loss is.

    `args` become Trainer's view of them, in which a batch is everything that one optimizer step reads on one rank.
    """

    args: TrainConfig
    sums: tuple[str, ...] = ()
    """Names that `pack_loss` passes to `add`. A rank whose packs add nothing counts as 0."""
    temperature: float = 1.0
    share_prompts: bool = True
    """Whether a group's prompt goes through the model once for all its completions. Does not change the result."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainConfig,
        *,
        tokenizer: PreTrainedTokenizerBase,
        train_dataset: Any,
        eval_dataset: Any = None,
        recorder: RunRecorder | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        stop_signals: StopSignals | None = None,
    ) -> None:
        self.recorder = recorder
        self.stop_signals = stop_signals
        self._stop = False
        self.watchdog = Watchdog(args.hang_timeout)
        self.checkpointer = Checkpointer(self)
        self.output_dir = Path(args.output_dir or ".")
        self._sums: dict[str, float | Tensor] = {}
        self._step_metrics: dict[str, list[float]] = defaultdict(list)
        self._tokens_seen = 0
        self._tokens_logged = 0.0
        self._tokens_trained = 0
        self._largest_pack = 0
        self._began = 0.0
        super().__init__(
            model=model,
            args=one_batch_per_step(args),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            data_collator=list,  # type: ignore[arg-type]
            callbacks=[_FinishStep(self), *callbacks],
        )
        self.share_prompts = self.share_prompts and can_share_prompts(model)
        self.routers = RouterStatistics(model)  # type: ignore[arg-type]
        rule = length_rule(model.config)  # type: ignore[arg-type]
        self.side = no_sides if rule is None else rule.side
        self.remove_callback(DEFAULT_PROGRESS_CALLBACK)  # a bar, or in a notebook a table
        self.remove_callback(PrinterCallback)
        for callback in activation_callbacks(model, args):
            self.add_callback(callback)
        if self.group is not None and not self.is_wrapped and not args.torch_compile:
            check_packed_forward(model, self.group)  # type: ignore[arg-type]

    # What SFT and GRPO define

    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader:
        """The input of `step_sequences`, one item per optimizer step."""
        raise NotImplementedError

    def step_sequences(self, inputs: Any) -> list[TokenSequence]:
        """This rank's sequences for the step."""
        raise NotImplementedError

    def step_tokens(self, sequences: list[TokenSequence]) -> int:
        """Number of tokens in this rank's share of the step."""
        return sum(len(s) for s in sequences)

    def pack_loss(self, pack: Pack, out: TokenLogprobs) -> Tensor:
        """Loss of one pack, such that the sum over packs and ranks is the loss of the step."""
        raise NotImplementedError

    # One optimizer step

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over all of this rank's packs; returns this rank's share of the loss, times W.

        DDP averages gradients over the W ranks, so losses that sum to the step's loss are multiplied by W. Processes
        that share packs are one rank, and have the same loss.
        """
        sequences = self.step_sequences(inputs)
        self._began = time.perf_counter()
        self.watchdog.beat("training")
        model.train()
        plan = self._plan(sequences)
        count = max(1, int(self.ranks.max(len(plan))))  # as many as on the rank with the most
        total = torch.zeros((), device=self.args.device)
        self._tokens_trained = self._largest_pack = 0
        for index, pack in enumerate(self._packs(sequences, plan, count)):
            last = index == count - 1
            # DeepSpeed steps inside `backward`, so it must know whether this is the last pack. FSDP2 reduces gradients
            # pack by pack, like ZeRO-2 and 3: full gradients would use the memory that it saves.
            self.accelerator.sync_gradients = last
            with nullcontext() if last or self.backend == "fsdp2" else self.accelerator.no_sync(model):
                recompute = self.args.gradient_checkpointing
                out = model(pack=pack, temperature=self.temperature, recompute=recompute)
                loss = self.pack_loss(pack, out) * self.data_ranks.world_size
                self.accelerator.backward(loss)
            total += loss.detach()
            self._tokens_trained += pack.num_tokens
            self.watchdog.beat("training")
        self.add("tokens", self.step_tokens(sequences))
        self.add("tokens_computed", self._tokens_trained)
        self.add("stop", float(self.stop_signals is not None and self.stop_signals.received is not None))
        return total

    def finish_step(self) -> None:
        """Waits for the device to finish the optimizer step, and records the step's metrics."""
        sums = self._step_sums()
        self.note("time/training", time.perf_counter() - self._began)
        for name, value in self.routers.figures().items():
            self.note(name, value)
        self.note_sums(sums)
        if sums["stop"]:  # on any rank, so that all stop after the same step
            self._stop = self.control.should_save = True
            self.args.save_only_model = False

    def note_sums(self, sums: dict[str, float]) -> None:
        """Records the metrics of the step from `sums`: the sums over all packs and ranks of what was passed to
        `add`."""
        self._tokens_seen += int(sums["tokens"])
        self._tokens_logged += sums["tokens"]
        self.note("tokens_computed", sums["tokens_computed"])

    def _packs(self, sequences: Sequence[TokenSequence], plan: list[list[int]], count: int) -> Iterator[Pack]:
        """`count` packs on this rank's device. The host builds each while the device computes the one before."""
        for members in plan:
            pack = self._pack(sequences, members)
            self._largest_pack = max(self._largest_pack, pack.num_tokens // self.args.sequence_parallel_size)
            yield pack
        for _ in range(count - len(plan)):
            yield empty_pack(self.args.device, self.share_prompts, self.group)

    def _plan(self, sequences: Sequence[TokenSequence]) -> list[list[int]]:
        budget = self.args.max_tokens_per_microbatch * self.args.sequence_parallel_size
        return plan_packs(sequences, budget, self.share_prompts, self.side)

    def _pack(self, sequences: Sequence[TokenSequence], members: Sequence[int]) -> Pack:
        return build_pack([sequences[i] for i in members], self.args.device, self.share_prompts, self.group)

    @torch.no_grad()
    def sequence_logprobs(
        self, model: nn.Module, sequences: Sequence[TokenSequence], phase: str = "training"
    ) -> list[Tensor]:
        """Logprobs of the learned tokens of each sequence, on the CPU, without gradients. `phase` is for the
        watchdog."""
        self.watchdog.beat(phase)
        was_training = model.training
        model.eval()
        plan = self._plan(sequences)
        found = []
        for pack in self._packs(sequences, plan, int(self.ranks.max(len(plan)))):
            found.append(model(pack=pack, temperature=self.temperature).logprobs.float())
            self.watchdog.beat(phase)
        results: list[Tensor] = [torch.empty(0)] * len(sequences)
        for members, logprobs in zip(plan, found, strict=False):  # empty packs come last
            counts = [int(sequences[i].learn.sum()) for i in members]
            for i, part in zip(members, logprobs.cpu().split(counts), strict=True):
                results[i] = part
            self.watchdog.beat(phase)
        model.train(was_training)
        return results

    # Metrics

    def note(self, name: str, value: float) -> None:
        """Records a metric of this step, of all ranks or of this rank. The log shows its mean over steps."""
        self._step_metrics[name].append(value)

    def add(self, name: str, value: float | Tensor) -> None:
        """Adds to a sum over the packs and ranks of the step. Tensors stay on the device until the step ends."""
        self._sums[name] = self._sums.get(name, 0.0) + value

    def _step_sums(self) -> dict[str, float]:
        """All sums of the step over ranks, in one reduction and one transfer, which wait for the device."""
        # Over all processes, since a signal to stop may have come to one of those that share packs.
        names = ("tokens", "tokens_computed", "stop", *self.sums)
        device = self.args.device
        values = torch.stack([torch.as_tensor(self._sums.get(n, 0.0), device=device).double() for n in names])
        self._sums.clear()
        sums = self.ranks.sums(values) / self.args.sequence_parallel_size
        return dict(zip(names, sums.tolist(), strict=True))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the metrics recorded since the last log to Trainer's own, and writes a line of `metrics.jsonl`. Raises
        `UserError` if the gradient was not finite (except in float16, where such steps are skipped)."""
        training = "loss" in logs
        if training:
            logs |= {name: sum(values) / len(values) for name, values in self._step_metrics.items()}
            seconds = sum(sum(v) for n, v in self._step_metrics.items() if n.startswith("time/"))
            logs["num_tokens"] = self._tokens_seen
            logs["tokens_per_second"] = self._tokens_logged / max(seconds, 1e-9)
            logs["memory/peak_gib"] = peak_gib(self.args.device)
            self._step_metrics.clear()
            self._tokens_logged = 0.0
        super().log(logs, start_time)
        if self.recorder is not None and is_metrics(logs):
            epoch = {} if self.state.epoch is None else {"epoch": self.state.epoch}
            self.recorder.log_metrics(self.state.global_step, logs | epoch)
        if training and not self.args.fp16 and not math.isfinite(logs.get("grad_norm") or 0.0):
            raise UserError(
                f"step {self.state.global_step}: the gradient is not finite, and the weights are lost. Lower "
                "learning_rate or max_grad_norm; the same command then continues from the last checkpoint."
            )

    def floating_point_ops(self, inputs: Any) -> int:
        """6 N per token that went through the model (Kaplan et al., arXiv 2001.08361, section 2.1)."""
        return 6 * get_model_param_count(self.model) * self._tokens_trained // self.args.sequence_parallel_size

    # Checkpoints

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return total_steps(self.args, self.steps_per_epoch())

    def resume_settings(self) -> dict[str, Any]:
        """Options, by name, that the saved state depends on: a run that continues must have the same. Here they
        translate a number of steps into a position in the data."""
        per_step = self.args.per_device_train_batch_size * self.data_ranks.world_size
        return {
            "per_device_train_batch_size x gradient_accumulation_steps x processes": per_step,
            "seed": self.args.seed,
            "data_seed": self.args.data_seed,
            "number of training rows": len(self.train_dataset),  # type: ignore[arg-type]
        }

    def checkpoint_state(self) -> dict[str, Any]:
        """State of this rank, in addition to Trainer's own, that it needs to continue exactly."""
        return {
            "world_size": self.world_size,
            "backend": self.backend,
            "settings": self.resume_settings(),
            "tokens_seen": self._tokens_seen,
            "config": self.recorder.config if self.recorder is not None else {},
        }

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Restores what `checkpoint_state` returned. Raises UserError if this run cannot continue with it."""
        self._tokens_seen = state["tokens_seen"]

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Trainer's `train`, from a complete checkpoint if one is given."""
        self.checkpointer.remove_leftovers()
        self._stop = False
        if resume_from_checkpoint:
            folder = Path(str(resume_from_checkpoint))
            state, _ = self.checkpointer.load(folder)
            if state.global_step >= self.total_steps():
                return self.checkpointer.finish(folder, state)
        if self.backend == "zero3":
            model: Any = self.model
            backends.fetch_by_layer(model, self.accelerator)
        try:
            with objects_frozen(), self.watchdog:
                return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        except torch.OutOfMemoryError as error:
            step = self.state.global_step + 1
            raise UserError(out_of_memory(error, self.args, step, self._largest_pack)) from error

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes a Hugging Face folder; collective."""
        self.checkpointer.save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        self.checkpointer.write_folder(output_dir, state_dict)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        write = super()._save_checkpoint
        self.checkpointer.save(lambda: write(model, trial))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.checkpointer.staging) if self.checkpointer.saving else super()._get_output_dir(trial)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Does nothing yet: Trainer calls this while the checkpoint is staged. The checkpointer pushes the renamed
        one."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: Trainer's card would overwrite the run's own (`report/card.py`)."""

    # Processes

    @property
    def world_size(self) -> int:
        return self.ranks.world_size

    @property
    def rank(self) -> int:
        return self.ranks.rank

    def create_accelerator_and_postprocess(self) -> None:
        """As in Trainer, on the requested backend, which `self.backend` names."""
        only_model = self.args.save_only_model
        self.args.save_only_model = False  # which Trainer refuses on some backends, and `save_model` can on all
        try:
            backends.allow_fsdp_on_cpu()
            super().create_accelerator_and_postprocess()
        except ValueError as error:
            raise UserError(f"accelerate cannot start with these options: {error}") from error
        finally:
            self.args.save_only_model = only_model
        self.ranks = Ranks(self.accelerator)
        size = self.args.sequence_parallel_size
        self.group = sequence_group(size, self.args.device.type)
        """The processes that share packs with this one. None if there are none."""
        self.data_ranks = Ranks(self.accelerator, copies=size)
        """The ranks that have different sequences. A group counts as one of them."""
        self.backend = backends.check_backend(self.accelerator)
        self.is_wrapped = self.backend not in ("single", "ddp")
        if self.is_wrapped and only_model and self.args.load_best_model_at_end:
            raise UserError("load_best_model_at_end needs save_only_model false with DeepSpeed and FSDP.")
        if self.backend == "fsdp2":
            backends.reduce_in_float32(self.accelerator)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """As in Trainer, but ignores tied weights, which a checkpoint has only once."""
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(type(load_result)(missing, load_result.unexpected_keys))

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """As in Trainer. Raises `Interrupted` after a stop signal, unless this was the last step."""
        super()._maybe_log_save_evaluate(*args, **kwargs)
        reset_loss(self)
        step = self.state.global_step
        if self._stop and step < self.total_steps():
            raise Interrupted(
                f"Stopped after step {step}, which is saved in {self.output_dir}/checkpoint-{step}. Run the same "
                "command to continue."
            )


class _FinishStep(TrainerCallback):
    """Calls `finish_step` once the optimizer step has been launched. If the host waited earlier, the GPU would be idle
    until the host launched the optimizer."""

    def __init__(self, trainer: PackedTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step's packs and optimizer have been launched."""
        self.trainer.finish_step()
