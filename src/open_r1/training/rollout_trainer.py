"""The half of GRPO that collects: rounds of rollouts from an engine, scored and cut into what each step learns from.

One round of rollouts feeds `max_steps_per_rollout` optimizer steps: `steps_per_generation` cut into distinct
batches, all of them passed over `num_iterations` times. With `max_staleness` N, at every N-th round the engine gets
the weights and a thread begins to write the next N rounds, while this one trains; these are 1 to N rounds old when
they are learned from.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from open_r1.configs import GRPOConfig
from open_r1.engine.protocol import Engine, Sampling
from open_r1.errors import UserError
from open_r1.training.batches import StepSampler
from open_r1.training.checkpoints import check_same_settings
from open_r1.training.dynamic_sampling import replace_groups, spare_rows
from open_r1.training.grpo_batches import check_batch, step_batches
from open_r1.training.packing import TokenSequence
from open_r1.training.policy_weights import PolicyWeights
from open_r1.training.rollouts import (
    Rollouts,
    make_rollouts,
    rollout_metrics,
    rollout_rows,
    sampling_seed,
    unscored_rows,
)
from open_r1.training.rounds import Round, RoundsAhead, RoundWriter
from open_r1.training.trainer import PackedTrainer

ROUND_SETTINGS = (
    *("temperature", "beta", "loss_type", "scale_rewards", "reward_weights", "max_completion_length"),
    *("mask_truncated_completions", "max_staleness"),
)
"""Options that rollouts are made with, which an unfinished round is continued with."""
EVALUATION_ROUND = 2**32 - 1


class RolloutTrainer(PackedTrainer):
    """`train_dataset` rows have `prompt`, `prompt_ids`, `prompt_text` and whatever columns the rewards read.
    `stop_token_ids` end a completion."""

    def __init__(
        self,
        model: Any,
        args: GRPOConfig,
        *,
        engine: Engine,
        reward_funcs: Sequence[Callable],
        reward_names: Sequence[str],
        stop_token_ids: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(model, args, **kwargs)
        self.grpo = args
        self.engine = engine
        self.reward_names = list(reward_names)
        self.reward_weights = args.reward_weights or [1.0] * len(reward_names)
        self.temperature = args.temperature
        sampling = Sampling(
            n=args.num_generations,
            temperature=args.temperature,
            max_tokens=args.max_completion_length,
            stop_token_ids=tuple(stop_token_ids),
        )
        self.writer = RoundWriter(engine, sampling, list(reward_funcs), self.reward_names, self.watchdog)
        self.ahead = RoundsAhead(self.watchdog)
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

    def step_sequences(self, rows: list[Mapping[str, Any]]) -> list[TokenSequence]:
        """Begins a new round if the last one is used up; returns this rank's share of this step's batch."""
        position = self.state.global_step % self.grpo.max_steps_per_rollout
        if position == 0:
            self.batches = self._collect(self.state.global_step // self.grpo.max_steps_per_rollout)
        return self.batches[position % self.steps_per_round]

    def step_tokens(self, sequences: list[TokenSequence]) -> int:
        """All tokens that were sampled for the step."""
        return self.batch_tokens[self.state.global_step % self.grpo.max_steps_per_rollout % self.steps_per_round]

    # A round

    def _collect(self, number: int) -> list[list[TokenSequence]]:
        step = self.state.global_step + 1
        if number in self.ahead:
            began = time.perf_counter()
            written = self.ahead.take(number)
            self.note("time/waiting", time.perf_counter() - began)
            self._note_round(written)
            discarded, clock = [], "ahead_time"
            self._write_ahead(number, current=False)
        else:
            began = time.perf_counter()
            self._send_weights()
            self.note("time/weight_update", time.perf_counter() - began)
            written = self._write(number)
            self._note_round(written)
            discarded, clock = self._refill(number, written), "time"
            if not self.grpo.max_staleness:
                self.engine.sleep()
            self._write_ahead(number, current=True)
        for name, seconds in written.seconds.items():
            self.note(f"{clock}/{name}", seconds)
        rollouts = self._rollouts(written, self.grpo.scale_rewards)
        self._samples = [completion.text for _, completion in rollouts.flat()[:3]]
        self._record(step, rollout_rows(rollouts, self.reward_names) + discarded)
        step_of_prompt = [i // self.prompts_per_step for i in self._slots()]
        batches, self.batch_tokens = step_batches(
            rollouts, step_of_prompt, self.steps_per_round, self.grpo, self.global_sum
        )
        return batches

    def _write(self, number: int) -> Round:
        rows = self.rows_of_round(number)
        slots = self._slots()
        seeds = [sampling_seed(self.args.seed, number, slot) for slot in slots]
        step = number * self.grpo.max_steps_per_rollout + 1
        return self.writer.write(self._prompts([rows[slot] for slot in slots]), seeds, step)

    def _refill(self, number: int, written: Round) -> list[dict[str, Any]]:
        """With `filter_groups`, replaces groups without signal; returns rows of what they were, for the record."""
        discarded: list[dict[str, Any]] = []
        slots, round_rows = self._slots(), self.rows_of_round(number)
        spare = spare_rows(len(self.train_dataset), round_rows, self.args.seed, number)  # type: ignore[arg-type]
        drawn = 0
        for _ in range(self.grpo.max_num_gen_batches - 1 if self.grpo.filter_groups else 0):
            signal = self._rollouts(written, "none").signal.tolist()
            silent = sorted(self.gather_lists([slot for slot, s in zip(slots, signal, strict=True) if not s]))
            fresh = {slot: drawn + i for i, slot in enumerate(silent) if drawn + i < len(spare)}
            if not fresh:
                break
            drawn += len(fresh)
            places = [place for place, slot in enumerate(slots) if slot in fresh]
            draws = [fresh[slots[place]] for place in places]
            seeds = [sampling_seed(self.args.seed, number, len(round_rows) + draw) for draw in draws]
            more = self.writer.write(self._prompts([spare[draw] for draw in draws]), seeds, self.state.global_step + 1)
            self._raise_together(more)
            removed = self._rollouts(replace_groups(written, places, more), "none")
            discarded += rollout_rows(removed, self.reward_names)
        if self.grpo.filter_groups:
            self.note("dynamic_sampling/replaced_groups", drawn)
        return discarded

    def _prompts(self, rows: Sequence[int]) -> list[Mapping[str, Any]]:
        return [self.train_dataset[row] for row in rows]  # type: ignore[index]

    def _write_ahead(self, number: int, current: bool) -> None:
        """Begins the next `max_staleness` rounds when none is left, with the weights as they are now; `current` says
        that the engine has them."""
        rounds = math.ceil(self.total_steps() / self.grpo.max_steps_per_rollout)
        coming = range(number + 1, min(number + 1 + self.grpo.max_staleness, rounds))
        if self.ahead or not coming:
            return
        if not current:
            began = time.perf_counter()
            self.accelerator.wait_for_everyone()
            self._send_weights()
            self.note("time/weight_update", time.perf_counter() - began)
        self.ahead.start({n: partial(self._write, n) for n in coming})

    def _note_round(self, written: Round) -> None:
        """Notes what the round was worth as it was written. Raises what a reward raised, completions recorded."""
        if self._failed_anywhere(written):
            rows = unscored_rows(written.prompts, written.completions)
            self._record(self.state.global_step + 1, rows)
            raise _failure(written)
        rollouts = self._rollouts(written, "none")
        for name, value in rollout_metrics(rollouts, self.reward_names, self.global_sum).items():
            self.note(name, value)
        if self.grpo.max_staleness:
            ages = [self.state.global_step - c.weights_version for group in written.completions for c in group]
            count = max(self.global_sum(len(ages)), 1)
            self.note("sampling/staleness", self.global_sum(sum(ages)) / count)
            self.note("sampling/stale_ratio", self.global_sum(sum(age > 0 for age in ages)) / count)

    def _failed_anywhere(self, written: Round) -> bool:
        return bool(self.global_max(written.error is not None))

    def _raise_together(self, written: Round) -> None:
        """Raises in every process if a reward raised in one, so that none waits for the others."""
        if self._failed_anywhere(written):
            raise _failure(written)

    def _rollouts(self, written: Round, scale: Any, group: int | None = None) -> Rollouts:
        return make_rollouts(
            written.prompts,
            written.completions,
            written.rewards,
            weights=self.reward_weights,
            num_generations=group or self.grpo.num_generations,
            scale_rewards=scale,
            mask_truncated=self.grpo.mask_truncated_completions,
            batch_std=self._global_std,
        )

    def _slots(self) -> list[int]:
        """Positions, among the prompts of a round, of those that this rank samples."""
        per_step = self.prompts_per_step
        return [i for i in range(per_step * self.steps_per_round) if i % per_step % self.world_size == self.rank]

    def rows_of_round(self, number: int) -> list[int]:
        """Training rows of a round's prompts, on all ranks."""
        sampler = self.step_sampler()
        epoch, batch = divmod(number, len(sampler) // sampler.repeat)
        sampler.set_epoch(epoch)
        return sampler.rows_of_batch(batch)

    def _send_weights(self) -> None:
        self.watchdog.beat("weight update")
        model = self.accelerator.unwrap_model(self.model)
        self.engine.update_weights(PolicyWeights(model, self.engine), self.state.global_step)
        self.engine.wake()

    def _record(self, step: int, rows: list[dict[str, Any]]) -> None:
        rows = self.gather_lists(rows)
        if self.recorder is not None:
            self.recorder.log_rollouts(step, rows)

    def gather_lists(self, mine: list[Any]) -> list[Any]:
        """The lists of all ranks, laid end to end."""
        if self.world_size == 1:
            return mine
        from accelerate.utils import gather_object

        return gather_object(mine)

    def _global_std(self, total: Tensor) -> float:
        known = total[~total.isnan()].double()
        count = self.global_sum(float(len(known)))
        mean = self.global_sum(known.sum().item()) / max(count, 1)
        return (self.global_sum((known - mean).square().sum().item()) / max(count - 1, 1)) ** 0.5

    # Evaluation and checkpoints

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        """Mean rewards and lengths of `num_generations_eval` samples for every evaluation prompt."""
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        mine = range(self.rank, len(rows), self.world_size)
        n = self.grpo.num_generations_eval or self.grpo.num_generations
        seeds = [sampling_seed(self.args.seed, EVALUATION_ROUND, i) for i in mine]
        writer = replace(self.writer, sampling=replace(self.writer.sampling, n=n))
        with self.lent_engine():
            written = writer.write([rows[i] for i in mine], seeds, self.state.global_step)
        self._raise_together(written)
        figures = rollout_metrics(self._rollouts(written, "none", n), self.reward_names, self.global_sum)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.watchdog.beat("training")
        return metrics

    @contextmanager
    def lent_engine(self) -> Iterator[Engine]:
        """The engine, with the weights as they are now, to write something other than rollouts."""
        self.ahead.settle()
        self.accelerator.wait_for_everyone()
        self._send_weights()
        yield self.engine
        if not self.grpo.max_staleness:
            self.engine.sleep()

    def resume_settings(self) -> dict[str, Any]:
        """With what a number of steps means as a position in a round of rollouts."""
        return super().resume_settings() | {
            "num_generations": self.grpo.num_generations,
            "steps_per_generation / gradient_accumulation_steps": self.steps_per_round,
            "num_iterations": self.grpo.num_iterations,
            "shuffle_dataset": self.grpo.shuffle_dataset,
        }

    def _round_settings(self) -> dict[str, Any]:
        return {name: getattr(self.grpo, name) for name in ROUND_SETTINGS}

    def checkpoint_state(self) -> dict[str, Any]:
        """With rollouts that still feed coming steps."""
        state = super().checkpoint_state()
        if self.state.global_step % self.grpo.max_steps_per_rollout:
            state["batches"] = [[s.__dict__ for s in batch] for batch in self.batches]
            state["batch_tokens"] = self.batch_tokens
        ahead = {n: written.state() for n, written in self.ahead.settle().items() if written.error is None}
        if ahead:
            state["ahead"] = ahead
        return state | ({"round_settings": self._round_settings()} if "batches" in state or ahead else {})

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Takes back tokens seen and rollouts."""
        super().load_checkpoint_state(state)
        if ("batches" in state or "ahead" in state) and state["world_size"] != self.world_size:
            raise UserError(
                f"this checkpoint stands inside a round of rollouts of {state['world_size']} processes, and now there "
                f"are {self.world_size}: continue with {state['world_size']}, or from a checkpoint whose step is a "
                f"multiple of {self.grpo.max_steps_per_rollout}."
            )
        multiple = f"continue from a checkpoint whose step is a multiple of {self.grpo.max_steps_per_rollout}."
        rollouts = "this checkpoint's unfinished round of rollouts"
        check_same_settings(rollouts, state.get("round_settings", {}), self._round_settings(), multiple)
        self.batches = [[TokenSequence(**s) for s in batch] for batch in state.get("batches", [])]
        self.batch_tokens = state.get("batch_tokens", [])
        for number, kept in state.get("ahead", {}).items():
            rows = self.rows_of_round(number)
            prompts = self._prompts([rows[slot] for slot in self._slots()])
            self.ahead.put_back({number: Round.from_state(prompts, kept)})


def _failure(written: Round) -> UserError:
    return written.error or UserError("a reward failed in another process, whose message says why.")
