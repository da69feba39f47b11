"""The trainers' `benchmarks:`, run on the policy during training and on the final model.

Every rank samples its share of the problems with an engine that has the policy's weights; rank 0 merges the shares into
`<output_dir>/evaluation/<task>`, or `.../evaluation/step-NNNNNN/<task>` during training.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedTokenizerBase, TrainerCallback

from open_r1.configs import DataConfig, GRPOConfig, ModelConfig, TrainConfig
from open_r1.data.conversations import ConversationRenderer
from open_r1.engine.choose import automatic_engine
from open_r1.engine.native.engine import NativeEngine, NativeOptions
from open_r1.engine.opening import OpenEngine, decode_budget
from open_r1.engine.protocol import Engine, Sampling
from open_r1.engine.transformers_engine import ReplicaEngine, TransformersEngine
from open_r1.engine.weights_digest import weights_digest
from open_r1.errors import Interrupted, UserError
from open_r1.evaluation.plan import conversation_of
from open_r1.evaluation.problems import BenchmarkProblem, Task, folder_name
from open_r1.evaluation.protocol import Protocol, protocol_for
from open_r1.evaluation.run import Benchmark, merge_shares, prepare, run_benchmark
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.files import OtherSettings
from open_r1.modeling.loading import context_length
from open_r1.report.recorder import read_metrics
from open_r1.run.first_process import by_first_process
from open_r1.run.policy_engine import native_engine
from open_r1.training.backends import splits_weights
from open_r1.training.grpo import GRPOTrainer
from open_r1.training.model import empty_replica, load_config
from open_r1.training.packed_trainer import PackedTrainer
from open_r1.training.policy_weights import PolicyWeights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark, loaded before training starts, so that a wrong name does not fail a run at its end."""

    task: Task
    protocol: Protocol
    problems: list[BenchmarkProblem]


class _StopRequested(Exception):
    """A signal asked the run to stop. Benchmarks must not delay that."""


@dataclass
class _PolicyEngine(OpenEngine):
    """The trainer's engine; `on_progress` is called as it samples."""

    on_progress: Callable[[], None] = lambda: None

    def reserve(self, tokens: int) -> None:
        """Nothing: the engine is already running."""

    def start(self, sampling: Sampling) -> None:
        """Nothing: the engine is already running."""

    def watch(self, on_tokens: Callable[[int], None] | None) -> None:
        """As in `OpenEngine`, with a call of `on_progress` first."""

        def report(count: int) -> None:
            self.on_progress()
            if on_tokens is not None:
                on_tokens(count)

        super().watch(report)


class Benchmarks(TrainerCallback):
    """Runs the benchmarks that `args` name: as a callback every `benchmarks_every_n_steps`, and in `final`."""

    def __init__(
        self, script: DataConfig, args: TrainConfig, model: ModelConfig, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.args, self.model, self.tokenizer, self.render = args, model, tokenizer, ConversationRenderer(tokenizer)
        self.loaded = [_load(name, script, args) for name in dict.fromkeys(args.benchmarks or ())]
        if args.benchmarks_every_n_steps and not self.loaded:
            raise UserError(
                f"benchmarks_every_n_steps is {args.benchmarks_every_n_steps}, but benchmarks is empty: list the "
                "benchmarks to run."
            )
        self.context = context_length(load_config(model)) if self.loaded else None
        self.context_name = "the model's context has"
        most = args.vllm_max_model_length if isinstance(args, GRPOConfig) else None
        if most is not None and (self.context is None or most < self.context):
            self.context, self.context_name = most, "vllm_max_model_length is"
        self.longest = max(map(self._longest, self.loaded), default=0)
        """Prompt plus completion tokens of the longest request, at most the context."""
        self.root = Path(args.output_dir or ".") / "evaluation"
        self.console = Console(quiet=args.process_index != 0)

    def attach(self, trainer: PackedTrainer, stop_token_ids: tuple[int, ...]) -> None:
        """Registers the benchmarks with `trainer`."""
        if self.loaded:
            self.trainer, self.stop_token_ids = trainer, stop_token_ids
            trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Deletes the results of later steps, which an earlier run had reached."""
        if state.is_world_process_zero:
            for folder in self.root.glob("step-*"):
                number = folder.name.removeprefix("step-")
                if number.isdigit() and int(number) > state.global_step:
                    shutil.rmtree(folder)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Runs the benchmarks after the checkpoint of the previous step, so that a run that is killed here resumes
        here."""
        every, step = self.args.benchmarks_every_n_steps, state.global_step
        if every and step and step % every == 0:
            self._run(self.root / f"step-{step:06d}", {"step": step})

    def final(self) -> dict[str, float]:
        """Runs them on the saved model and returns their metrics. Raises Interrupted after a stop signal."""
        if not self.loaded:
            return {}
        saved = self.args.output_dir or "."
        digest = by_first_process(self.trainer.rank, lambda: weights_digest(saved))
        with self.trainer.watchdog:
            metrics = self._run(self.root, {"weights": digest})
        if metrics is None:
            raise Interrupted("Stopped during the benchmarks of the trained model. Run the same command to continue.")
        return metrics

    def _run(self, root: Path, identity: dict[str, Any]) -> dict[str, float] | None:
        """Metrics of all benchmarks, on rank 0; None if the run was asked to stop before they were complete."""
        trainer = self.trainer
        metrics: dict[str, float] = {}
        with self._borrowed_engine() as borrowed:
            engine = self._engine(borrowed, identity)
            for loaded in self.loaded:
                results = self._run_one(loaded, engine, root)
                if results is None:
                    logger.warning("%s is unfinished, because the run was asked to stop.", loaded.task.name)
                    return None
                if trainer.rank == 0:
                    found = _metrics(results)
                    metrics |= found
                    if not self._is_logged(found):
                        trainer.log(found)
        trainer.watchdog.beat("training")
        return metrics

    def _is_logged(self, metrics: dict[str, float]) -> bool:
        """Whether this run, before it was resumed, has already logged these metrics for this step."""
        path = Path(self.args.output_dir or ".") / "run"
        step = self.trainer.state.global_step
        return any(line["step"] == step and metrics.keys() <= line.keys() for line in read_metrics(path))

    def _run_one(self, loaded: LoadedBenchmark, engine: OpenEngine, root: Path) -> dict[str, Any] | None:
        """The results, on rank 0; None if the run was asked to stop before they were complete."""
        trainer, world, folder = self.trainer, self.trainer.world_size, root / folder_name(loaded.task.name)
        whole = self._prepare(loaded, loaded.problems, engine, folder) if trainer.rank == 0 else None
        shares = [folder / f"share-{rank}-of-{world}" for rank in range(min(world, len(loaded.problems)))]
        # All wait here, because rank 0 may have moved the folder of the shares.
        is_complete = trainer.ranks.max(float(whole is not None and whole.is_complete))
        stopped = False
        try:
            if world == 1 or is_complete:
                return run_benchmark(whole, self.console) if whole is not None else {}
            if trainer.rank < len(shares):
                mine = loaded.problems[trainer.rank :: world]
                run_benchmark(self._prepare(loaded, mine, engine, shares[trainer.rank]), self.console)
        except _StopRequested:
            stopped = True
        if trainer.ranks.max(float(stopped)):
            return None
        return merge_shares(whole, shares) if whole is not None else {}

    def _prepare(
        self, loaded: LoadedBenchmark, problems: list[BenchmarkProblem], engine: OpenEngine, folder: Path
    ) -> Benchmark:
        """Moves samples with other settings (such as another state of the model) to another folder."""
        options: Any = {"console": self.console}
        arguments = (loaded.task, problems, str(self.args.output_dir), engine, loaded.protocol, folder)
        try:
            return prepare(*arguments, **options)
        except OtherSettings:
            number = sum(1 for _ in self.root.glob("earlier-*")) + 1
            moved = self.root / f"earlier-{number}" / folder.relative_to(self.root)
            moved.parent.mkdir(parents=True)
            folder.rename(moved)
            self.console.print(f"Moved samples with other settings to {moved}.", soft_wrap=True, markup=False)
            return prepare(*arguments, **options)

    @contextmanager
    def _borrowed_engine(self) -> Iterator[Engine]:
        """The engine that samples rollouts. SFT has none: it opens the native engine while the benchmarks run, or uses
        the model itself, or a copy of it where the weights are sharded."""
        trainer = self.trainer
        if isinstance(trainer, GRPOTrainer):
            with trainer.source.lent_engine() as engine:
                before = getattr(engine, "on_tokens", None)
                yield engine
                engine.on_tokens = before  # type: ignore[attr-defined]
            return
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        device = self.args.device.type
        name: Any = getattr(self.args, "engine", "auto")
        if name == "auto":
            name = automatic_engine(model.config, on_cuda=device == "cuda", wants_vllm=False)
        budget = decode_budget(device)
        if name == "transformers" and not splits_weights(self.args):
            yield TransformersEngine(model, self.tokenizer, max_tokens_per_batch=budget)
            return
        trainer.watchdog.beat("weights for benchmarks")
        copy: NativeEngine | ReplicaEngine
        with torch.random.fork_rng([self.args.device] if device == "cuda" else []):
            if name == "native":
                if device == "cuda":
                    torch.cuda.empty_cache()  # memory that training does not use is room for the engine's cache
                options = NativeOptions()
                copy = native_engine(self.args, self.model, model, self.tokenizer, self.longest, options)
            else:
                replica = empty_replica(self.model, self.args, model.config)
                copy = ReplicaEngine(replica, self.tokenizer, max_tokens_per_batch=budget)
        copy.update_weights(PolicyWeights(model, copy), trainer.state.global_step)
        try:
            if isinstance(copy, NativeEngine):
                copy.start()  # before the benchmark measures time
            yield copy
        finally:
            copy.close()

    def _engine(self, engine: Engine, identity: dict[str, Any]) -> OpenEngine:
        longest: int | None = getattr(engine, "max_model_len", None)
        limits = [limit for limit in (self.context, longest) if limit is not None]
        return _PolicyEngine(
            engine=engine,
            name=_name(engine),
            context=min(limits, default=None),
            stop_token_ids=self.stop_token_ids,
            render=self.render,
            prompt_tokens=len,
            max_tokens_per_batch=getattr(engine, "max_tokens_per_batch", None),
            identity=identity,
            on_progress=self._on_progress,
        )

    def _longest(self, loaded: LoadedBenchmark) -> int:
        lengths = [len(self.render(conversation_of(problem, loaded.protocol))) for problem in loaded.problems]
        if self.context is not None and max(lengths) >= self.context:
            raise UserError(
                f"benchmarks: a prompt of {loaded.task.name} has {max(lengths):,} tokens, and {self.context_name} "
                f"{self.context:,}: raise it (for a longer context, use another model), or remove {loaded.task.name}."
            )
        wanted = max(lengths) + loaded.protocol.max_new_tokens
        return wanted if self.context is None else min(wanted, self.context)

    def _on_progress(self) -> None:
        self.trainer.watchdog.beat("benchmarks")
        signals = self.trainer.stop_signals
        if signals is not None and signals.received is not None:
            raise _StopRequested


def _name(engine: Engine) -> str:
    if isinstance(engine, NativeEngine):
        return "native"
    return "transformers" if isinstance(engine, TransformersEngine) else "vllm"


def _load(name: str, script: DataConfig, args: TrainConfig) -> LoadedBenchmark:
    task = find_task(name)
    protocol = protocol_for(
        task,
        args.benchmarks_protocol,
        num_samples=args.benchmarks_num_samples,
        max_new_tokens=args.benchmarks_max_new_tokens or args.longest_completion,
        seed=args.seed,
        system_prompt=script.system_prompt,
    )
    data_dir = None if args.benchmarks_data_dir is None else Path(args.benchmarks_data_dir)
    return LoadedBenchmark(task, protocol, load_problems(task, data_dir, args.benchmarks_limit))


def _metrics(results: dict[str, Any]) -> dict[str, float]:
    """The part of a benchmark's results that is recorded as metrics of the run."""
    metrics = {name: results[name] for name in ("pass@1", "mean_tokens", "truncated", "no_answer")}
    metrics |= {"ci95_low": results["ci95"][0], "ci95_high": results["ci95"][1]}
    return {f"eval_{results['task']}_{name}": value for name, value in metrics.items()}
