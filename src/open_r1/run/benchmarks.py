"""The trainers' `benchmarks:`, run on the policy while it trains and on the final model.

Every rank samples its share of the problems with an engine that has the policy's weights; rank 0 puts the shares
together in `<output_dir>/evaluation/<task>`, or `.../evaluation/step-NNNNNN/<task>` while training.
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
from open_r1.data.conversations import PromptRenderer
from open_r1.engine.automatic import automatic_engine
from open_r1.engine.choose import OpenEngine, decode_budget
from open_r1.engine.native.engine import NativeEngine, NativeOptions
from open_r1.engine.protocol import Engine
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
class Asked:
    """A benchmark, loaded before training begins, so that a wrong name does not end a run at its end."""

    task: Task
    protocol: Protocol
    problems: list[BenchmarkProblem]


class _Left(Exception):
    """A signal asked the run to stop, which a benchmark must not hold up."""


@dataclass
class _PolicyEngine(OpenEngine):
    """The trainer's engine; `on_progress` is called as it writes."""

    on_progress: Callable[[], None] = lambda: None

    def reserve(self, tokens: int) -> None:
        """Nothing: the engine is there already."""

    def start(self) -> None:
        """Nothing: the engine is there already."""

    def watch(self, on_tokens: Callable[[int], None] | None) -> None:
        """As `OpenEngine`'s, with `on_progress` before it."""

        def watched(count: int) -> None:
            self.on_progress()
            if on_tokens is not None:
                on_tokens(count)

        super().watch(watched)


class Benchmarks(TrainerCallback):
    """Runs the benchmarks that `args` ask for: as a callback every so many steps, and with `final` at the end."""

    def __init__(
        self, script: DataConfig, args: TrainConfig, model: ModelConfig, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.args, self.model, self.tokenizer, self.render = args, model, tokenizer, PromptRenderer(tokenizer)
        self.asked = [_asked(name, script, args) for name in dict.fromkeys(args.benchmarks or ())]
        if args.benchmarks_every_n_steps and not self.asked:
            raise UserError(
                f"benchmarks_every_n_steps is {args.benchmarks_every_n_steps}, but benchmarks is empty: name some."
            )
        self.context = context_length(load_config(model)) if self.asked else None
        self.context_name = "the model's context has"
        most = args.vllm_max_model_length if isinstance(args, GRPOConfig) else None
        if most is not None and (self.context is None or most < self.context):
            self.context, self.context_name = most, "vllm_max_model_length is"
        self.longest = max(map(self._longest, self.asked), default=0)
        """Tokens of the longest request, prompt and completion together, as far as there is room."""
        self.root = Path(args.output_dir or ".") / "evaluation"
        self.console = Console(quiet=args.process_index != 0)

    def attach(self, trainer: PackedTrainer, stop_token_ids: tuple[int, ...]) -> None:
        """Makes `trainer` run them."""
        if self.asked:
            self.trainer, self.stop_token_ids = trainer, stop_token_ids
            trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drops what a run that went further had found."""
        if state.is_world_process_zero:
            for folder in self.root.glob("step-*"):
                number = folder.name.removeprefix("step-")
                if number.isdigit() and int(number) > state.global_step:
                    shutil.rmtree(folder)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Runs them behind the checkpoint of the step before, so that a kill here is continued here."""
        every, step = self.args.benchmarks_every_n_steps, state.global_step
        if every and step and step % every == 0:
            self._run(self.root / f"step-{step:06d}", {"step": step})

    def final(self) -> dict[str, float]:
        """Runs them on the model that was saved; returns their figures. Raises Interrupted after a stop signal."""
        if not self.asked:
            return {}
        saved = self.args.output_dir or "."
        digest = by_first_process(self.trainer.rank, lambda: weights_digest(saved))
        with self.trainer.watchdog:
            figures = self._run(self.root, {"weights": digest})
        if figures is None:
            raise Interrupted("Stopped in the benchmarks of the trained model. The same command continues there.")
        return figures

    def _run(self, root: Path, identity: dict[str, Any]) -> dict[str, float] | None:
        """Figures of all benchmarks, on rank 0; None if the run was asked to stop before they were there."""
        trainer = self.trainer
        figures: dict[str, float] = {}
        with self._lent_engine() as lent:
            engine = self._engine(lent, identity)
            for asked in self.asked:
                results = self._run_one(asked, engine, root)
                if results is None:
                    logger.warning("%s is left unfinished, because the run was asked to stop.", asked.task.name)
                    return None
                if trainer.rank == 0:
                    found = _figures(results)
                    figures |= found
                    if not self._is_logged(found):
                        trainer.log(found)
        trainer.watchdog.beat("training")
        return figures

    def _is_logged(self, figures: dict[str, float]) -> bool:
        """Whether an earlier part of this run has written these figures of this step."""
        path = Path(self.args.output_dir or ".") / "run"
        step = self.trainer.state.global_step
        return any(line["step"] == step and figures.keys() <= line.keys() for line in read_metrics(path))

    def _run_one(self, asked: Asked, engine: OpenEngine, root: Path) -> dict[str, Any] | None:
        """The results, on rank 0; None if the run was asked to stop before they were there."""
        trainer, folder, world = self.trainer, _folder(root, asked), self.trainer.world_size
        whole = self._prepare(asked, asked.problems, engine, folder) if trainer.rank == 0 else None
        shares = [folder / f"share-{rank}-of-{world}" for rank in range(min(world, len(asked.problems)))]
        left = False
        try:
            if whole is not None and world == 1:
                return run_benchmark(whole, self.console)
            if world > 1 and trainer.rank < len(shares):
                mine = asked.problems[trainer.rank :: world]
                run_benchmark(self._prepare(asked, mine, engine, shares[trainer.rank]), self.console)
        except _Left:
            left = True
        if trainer.ranks.max(float(left)):
            return None
        return merge_shares(whole, shares) if whole is not None else {}

    def _prepare(self, asked: Asked, problems: list[BenchmarkProblem], engine: OpenEngine, folder: Path) -> Benchmark:
        """With samples that were made in another way (of a model trained further, say) put out of the way."""
        options: Any = {"console": self.console}
        arguments = (asked.task, problems, str(self.args.output_dir), engine, asked.protocol, folder)
        try:
            return prepare(*arguments, **options)
        except OtherSettings:
            number = sum(1 for _ in self.root.glob("earlier-*")) + 1
            kept = self.root / f"earlier-{number}" / folder.relative_to(self.root)
            kept.parent.mkdir(parents=True)
            folder.rename(kept)
            self.console.print(f"Samples made with other settings are now in {kept}.", soft_wrap=True, markup=False)
            return prepare(*arguments, **options)

    @contextmanager
    def _lent_engine(self) -> Iterator[Engine]:
        """The engine that writes rollouts. SFT has none: then the native engine for as long as the benchmarks last, or
        the model, or a copy of it where each process has a part."""
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
                    torch.cuda.empty_cache()  # what training leaves unused is room for the engine's cache
                options = NativeOptions()
                copy = native_engine(self.args, self.model, model, self.tokenizer, self.longest, options)
            else:
                replica = empty_replica(self.model, self.args, model.config)
                copy = ReplicaEngine(replica, self.tokenizer, max_tokens_per_batch=budget)
        copy.update_weights(PolicyWeights(model, copy), trainer.state.global_step)
        try:
            if isinstance(copy, NativeEngine):
                copy.start()  # before the benchmark's clock
            yield copy
        finally:
            copy.close()

    def _engine(self, lent: Engine, identity: dict[str, Any]) -> OpenEngine:
        longest: int | None = getattr(lent, "max_model_len", None)
        limits = [limit for limit in (self.context, longest) if limit is not None]
        return _PolicyEngine(
            engine=lent,
            name=_name(lent),
            context=min(limits, default=None),
            stop_token_ids=self.stop_token_ids,
            render=self.render,
            prompt_tokens=len,
            max_tokens_per_batch=getattr(lent, "max_tokens_per_batch", None),
            identity=identity,
            on_progress=self._on_progress,
        )

    def _longest(self, asked: Asked) -> int:
        lengths = [len(self.render(conversation_of(problem, asked.protocol))) for problem in asked.problems]
        if self.context is not None and max(lengths) >= self.context:
            raise UserError(
                f"benchmarks: a prompt of {asked.task.name} has {max(lengths):,} tokens, and {self.context_name} "
                f"{self.context:,}: raise it (the context: by another model), or leave {asked.task.name} out."
            )
        wanted = max(lengths) + asked.protocol.max_new_tokens
        return wanted if self.context is None else min(wanted, self.context)

    def _on_progress(self) -> None:
        self.trainer.watchdog.beat("benchmarks")
        signals = self.trainer.stop_signals
        if signals is not None and signals.received is not None:
            raise _Left


def _name(engine: Engine) -> str:
    if isinstance(engine, NativeEngine):
        return "native"
    return "transformers" if isinstance(engine, TransformersEngine) else "vllm"


def _asked(name: str, script: DataConfig, args: TrainConfig) -> Asked:
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
    return Asked(task, protocol, load_problems(task, data_dir, args.benchmarks_limit))


def _folder(root: Path, asked: Asked) -> Path:
    return root / folder_name(asked.task.name)


def _figures(results: dict[str, Any]) -> dict[str, float]:
    """What the run's metrics show of a benchmark."""
    figures = {name: results[name] for name in ("pass@1", "mean_tokens", "truncated", "no_answer")}
    figures |= {"ci95_low": results["ci95"][0], "ci95_high": results["ci95"][1]}
    return {f"eval_{results['task']}_{name}": value for name, value in figures.items()}
