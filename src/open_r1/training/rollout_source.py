"""The source of GRPO's rounds: an engine samples completions for prompts of a dataset, and rewards score them.

A round has the prompts of `steps_per_generation` micro-steps and feeds `max_steps_per_rollout` optimizer steps: its
distinct steps, `num_iterations` times. With `max_staleness` N, the engine gets the weights at every N-th round, and a
thread samples the next N rounds while this one trains. These are 1 to N rounds old when they are used.

The trainer uses `take`, `evaluate`, `lent_engine`, `state` and `load_state` of a source, and does not know the engine.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from open_r1.configs import GRPOConfig
from open_r1.engine.protocol import Engine, Sampling
from open_r1.errors import UserError
from open_r1.training.batches import StepSampler, rows_at, total_steps
from open_r1.training.dynamic_sampling import replace_groups, spare_rows
from open_r1.training.ranks import Ranks
from open_r1.training.rollouts import (
    Rollouts,
    rollout_metrics,
    rollout_rows,
    sampling_seed,
    unscored_rows,
    with_advantages,
)
from open_r1.training.rounds import Round, RoundsAhead, RoundSampler
from open_r1.training.watchdog import Watchdog

EVALUATION_ROUND = 2**32 - 1
Rows = list[dict[str, Any]]


@dataclass
class Collected:
    """This rank's share of a scored round, the rollouts that dynamic sampling replaced, and the `figures` of the round
    as it was sampled: rewards, lengths, seconds per phase."""

    round: Round
    replaced: Rows
    figures: dict[str, float]


class RolloutSource:
    """Rounds of rollouts by number. Every method is collective.

    Rows of `dataset` have `prompt`, `prompt_ids`, `prompt_text` and whatever columns the rewards read.
    `update_weights` sends the policy's current weights to the engine. `record` saves the rollouts of a round whose
    reward failed.
    """

    def __init__(
        self,
        args: GRPOConfig,
        dataset: Any,
        engine: Engine,
        reward_funcs: Sequence[Callable],
        reward_names: Sequence[str],
        stop_token_ids: Sequence[int],
        *,
        ranks: Ranks,
        watchdog: Watchdog,
        update_weights: Callable[[], None],
        record: Callable[[Rows], None],
    ) -> None:
        self.args, self.dataset, self.engine, self.ranks = args, dataset, engine, ranks
        self.reward_names = list(reward_names)
        self.update_weights, self.record = update_weights, record
        sampling = Sampling(
            n=args.num_generations,
            temperature=args.temperature,
            max_tokens=args.max_completion_length,
            stop_token_ids=tuple(stop_token_ids),
        )
        self.sampler = RoundSampler(engine, sampling, list(reward_funcs), self.reward_names, watchdog)
        self.ahead = RoundsAhead(watchdog)
        shared_by = args.sequence_parallel_size
        data_ranks = ranks.world_size // shared_by
        self.prompts_per_step = args.per_device_train_batch_size * data_ranks // args.num_generations
        self.steps_per_round = args.max_steps_per_rollout // args.num_iterations
        self.order = StepSampler(
            len(dataset),
            self.prompts_per_step * self.steps_per_round,
            seed=args.data_seed if args.data_seed is not None else args.seed,
            shuffle=args.shuffle_dataset,
            drop_last=True,
        )
        self.steps_per_epoch = len(self.order) * args.max_steps_per_rollout
        self.num_rounds = math.ceil(total_steps(args, self.steps_per_epoch) / args.max_steps_per_rollout)

        def sampled_by(place: int) -> int:
            """The process that samples a prompt: prompts are dealt to data ranks, then to the processes of a rank."""
            turn, data_rank = divmod(place, data_ranks)
            return data_rank * shared_by + turn % shared_by

        places = range(self.order.batch_size)
        self.slots = [i for i in places if sampled_by(i % self.prompts_per_step) == ranks.rank]
        """Positions, among the prompts of a round, that this process samples."""

    def take(self, number: int, step: int) -> Collected:
        """The round `number`, which begins at `step`. Raises UserError for a reward that failed, in every rank."""
        figures: dict[str, float] = {}
        replaced: Rows = []
        if number in self.ahead:
            with _timed(figures, "time/waiting"):
                sampled = self.ahead.take(number)
            figures |= self._figures(sampled, step)
            self._sample_ahead(number, figures, has_weights=False)
            clock = "ahead_time"
        else:
            with _timed(figures, "time/weight_update"):
                self.update_weights()
            sampled = self._sample(number)
            figures |= self._figures(sampled, step)
            if self.args.filter_groups:
                replaced = self._replace_silent_groups(number, sampled, step, figures)
            if not self.args.max_staleness:
                self.engine.sleep()
            self._sample_ahead(number, figures, has_weights=True)
            clock = "time"
        figures |= {f"{clock}/{part}": seconds for part, seconds in sampled.seconds.items()}
        return Collected(sampled, replaced, figures)

    def evaluate(self, rows: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
        """Mean rewards and lengths of `num_generations_eval` samples for every evaluation prompt."""
        mine = self.ranks.share(len(rows))
        n = self.args.num_generations_eval or self.args.num_generations
        seeds = [sampling_seed(self.args.seed, EVALUATION_ROUND, i) for i in mine]
        with self.lent_engine():
            sampled = self.sampler.sample([rows[i] for i in mine], seeds, step, n)
        self._raise_together(sampled)
        return self._metrics(self._rollouts(sampled, n))

    @contextmanager
    def lent_engine(self) -> Iterator[Engine]:
        """The engine with the current weights, for sampling something other than rollouts."""
        self.ahead.settle()
        self.ranks.wait()
        self.update_weights()
        yield self.engine
        if not self.args.max_staleness:
            self.engine.sleep()

    def state(self) -> dict[int, dict[str, Any]]:
        """State for a checkpoint: rounds that were sampled ahead."""
        return {n: sampled.state() for n, sampled in self.ahead.settle().items() if sampled.error is None}

    def load_state(self, state: Mapping[int, dict[str, Any]]) -> None:
        """Restores what `state` returned."""
        for number, saved in state.items():
            self.ahead.put_back({number: Round.from_state(self._prompts(number), saved)})

    # Sampling

    def _sample(self, number: int) -> Round:
        seeds = [sampling_seed(self.args.seed, number, slot) for slot in self.slots]
        first_step = number * self.args.max_steps_per_rollout + 1
        return self.sampler.sample(self._prompts(number), seeds, first_step)

    def _sample_ahead(self, number: int, figures: dict[str, float], has_weights: bool) -> None:
        """Starts sampling the next `max_staleness` rounds, with the current weights, if none is left."""
        coming = range(number + 1, min(number + 1 + self.args.max_staleness, self.num_rounds))
        if self.ahead or not coming:
            return
        if not has_weights:
            with _timed(figures, "time/weight_update"):
                self.ranks.wait()
                self.update_weights()
        self.ahead.start({n: partial(self._sample, n) for n in coming})

    def _replace_silent_groups(self, number: int, sampled: Round, step: int, figures: dict[str, float]) -> Rows:
        """Dynamic sampling: replaces groups without signal. Returns the rows of the replaced ones."""
        replaced: Rows = []
        round_rows = self._rows(number)
        spare = spare_rows(len(self.dataset), round_rows, self.args.seed, number)
        drawn = 0
        for _ in range(self.args.max_num_gen_batches - 1):
            signal = self._rollouts(sampled).signal.tolist()
            silent = sorted(self.ranks.gather([slot for slot, s in zip(self.slots, signal, strict=True) if not s]))
            fresh = {slot: drawn + i for i, slot in enumerate(silent) if drawn + i < len(spare)}
            if not fresh:
                break
            drawn += len(fresh)
            places = [place for place, slot in enumerate(self.slots) if slot in fresh]
            draws = [fresh[self.slots[place]] for place in places]
            seeds = [sampling_seed(self.args.seed, number, len(round_rows) + draw) for draw in draws]
            more = self.sampler.sample([self.dataset[spare[draw]] for draw in draws], seeds, step)
            self._raise_together(more)
            removed = self._rollouts(replace_groups(sampled, places, more))
            replaced += rollout_rows(removed, self.reward_names)
        figures["dynamic_sampling/replaced_groups"] = drawn
        return replaced

    def _rows(self, number: int) -> list[int]:
        """Dataset rows of a round's prompts, on all ranks."""
        epoch, batch = divmod(number, len(self.order))
        self.order.set_epoch(epoch)
        return self.order.rows_of_batch(batch)

    def _prompts(self, number: int) -> list[Mapping[str, Any]]:
        rows = self._rows(number)
        return rows_at(self.dataset, [rows[slot] for slot in self.slots])

    # Figures

    def _figures(self, sampled: Round, step: int) -> dict[str, float]:
        """Metrics of the round as it was sampled. If a reward raised, records the completions and raises its error."""
        if self._failed_anywhere(sampled):
            self.record(unscored_rows(sampled.prompts, sampled.completions))
            raise _failure(sampled)
        figures = self._metrics(self._rollouts(sampled))
        if self.args.max_staleness:
            ages = [step - 1 - c.weights_version for group in sampled.completions for c in group]
            count = max(self.ranks.sum(len(ages)), 1)
            figures["sampling/staleness"] = self.ranks.sum(sum(ages)) / count
            figures["sampling/stale_ratio"] = self.ranks.sum(sum(age > 0 for age in ages)) / count
        return figures

    def _metrics(self, rollouts: Rollouts) -> dict[str, float]:
        return rollout_metrics(rollouts, self.reward_names, self.ranks.sum)

    def _rollouts(self, sampled: Round, group: int | None = None) -> Rollouts:
        return with_advantages(sampled, self.args, scale="none", group=group)

    def _failed_anywhere(self, sampled: Round) -> bool:
        return bool(self.ranks.max(sampled.error is not None))

    def _raise_together(self, sampled: Round) -> None:
        """Raises in every process if a reward raised in one, so that none waits for the others."""
        if self._failed_anywhere(sampled):
            raise _failure(sampled)


def _failure(sampled: Round) -> UserError:
    return sampled.error or UserError("a reward failed in another process: the message of that process says why.")


@contextmanager
def _timed(figures: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    figures[name] = time.perf_counter() - began
