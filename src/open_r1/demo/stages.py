"""The four stages of the demo. Each one trains through the same entry point and recipe as on the command line.

base         the pre-trained model                       (recipes/demo/pretrain.yaml)
distil       SFT on the base's own verified answers      (recipes/demo/distil.yaml)
zero         R1-Zero: GRPO on the base                   (recipes/demo/zero.yaml)
multi_stage  SFT on a few verified answers, then GRPO    (recipes/demo/multi_stage_sft.yaml, multi_stage.yaml)
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1 import grpo, sft
from open_r1.demo.base import pretrain
from open_r1.demo.evaluate import Score, evaluate, sample_answers
from open_r1.demo.files import recipe_argv, write_jsonl
from open_r1.demo.programs import CODE
from open_r1.demo.sums import SUMS
from open_r1.demo.task import Task, check_disjoint, conversation

OnTokens = Callable[[int], None]


@dataclass(frozen=True)
class Sizes:
    """Numbers of problems and traces, and `overrides`: options on top of each recipe, by its name."""

    traced_problems: int
    few_traces: int
    overrides: dict[str, list[str]]


FULL = Sizes(traced_problems=256, few_traces=64, overrides={})
FAST = Sizes(
    traced_problems=64,
    few_traces=32,
    overrides={
        "zero": ["--max_steps", "8", "--per_device_train_batch_size", "128"],
        "multi_stage": ["--max_steps", "6", "--per_device_train_batch_size", "128"],
    },
)
HELD_OUT_PROBLEMS = 512
TRAINING_PROBLEMS = 1024
SAMPLES_PER_PROBLEM = 4
TASKS = {task.name: task for task in (SUMS, CODE)}


@dataclass(frozen=True)
class Demo:
    """One run of the demo. `sampling` makes a context that shows the progress of sampling under a message."""

    task: Task
    output: Path
    seed: int
    sizes: Sizes
    from_scratch: bool
    sampling: Callable[[str], AbstractContextManager[OnTokens]]

    @property
    def problems_file(self) -> Path:
        return self.output / "data" / "problems.jsonl"

    @property
    def held_out_file(self) -> Path:
        return self.output / "data" / "held_out.jsonl"

    @property
    def traces_file(self) -> Path:
        return self.output / "data" / "verified_traces.jsonl"

    def score(self, stage: str) -> Score:
        """Evaluates a stage's model on the held-out problems."""
        problems = self.task.held_out(HELD_OUT_PROBLEMS)
        with self.sampling(f"{stage}  answering {len(problems)} held-out problems") as on_tokens:
            return evaluate(self.task, self.output / stage, problems, self.seed, on_tokens)

    def train(self, main: Callable[[list[str]], Any], recipe_name: str, model: str, data: Path) -> None:
        """Runs an entry point with one of the demo's recipes; the model goes to a folder with the recipe's name."""
        argv = recipe_argv(
            recipe_name, model=self.output / model, data=data, output=self.output / recipe_name, seed=self.seed
        )
        main([*argv, *self.task.overrides.get(recipe_name, []), *self.sizes.overrides.get(recipe_name, [])])


def write_problems(demo: Demo) -> None:
    """Writes the training and the held-out problems. Raises `ValueError` if they share a problem."""
    task = demo.task
    problems, held_out = task.problems("train", TRAINING_PROBLEMS, demo.seed), task.held_out(HELD_OUT_PROBLEMS)
    check_disjoint(problems, held_out)
    write_jsonl(demo.problems_file, ({"prompt": p.question, **task.columns(p)} for p in problems))
    write_jsonl(demo.held_out_file, ({"problem": p.question, "answer": p.gold} for p in held_out))


def base(demo: Demo) -> None:
    """Copies the base model that ships with the package, or trains it from scratch."""
    write_problems(demo)
    if demo.from_scratch:
        pretrain(demo.task, demo.output, demo.seed)
    else:
        shutil.copytree(demo.task.base, demo.output / "base")


def distil(demo: Demo) -> None:
    """Samples several answers per problem from the base, and fine-tunes the base on the right ones."""
    problems = demo.task.problems("train", demo.sizes.traced_problems, demo.seed)
    with demo.sampling(f"distil  sampling {SAMPLES_PER_PROBLEM} answers to {len(problems)} problems") as on_tokens:
        answers = demo.output / "data" / "answers"
        rows = sample_answers(
            demo.task, demo.output / "base", problems, SAMPLES_PER_PROBLEM, demo.seed, answers, on_tokens
        )
    traces = (
        {"messages": conversation(row["problem"], row["completion"]), "answer": row["gold"]}
        for row in rows
        if row["correct"]
    )
    write_jsonl(demo.traces_file, traces)
    demo.train(sft.main, "distil", "base", demo.traces_file)


def zero(demo: Demo) -> None:
    """GRPO on the base: no examples, only a reward for right answers."""
    demo.train(grpo.main, "zero", "base", demo.problems_file)


def multi_stage(demo: Demo) -> None:
    """A cold start on a few verified answers, then GRPO."""
    lines = demo.traces_file.read_text(encoding="utf-8").splitlines(keepends=True)
    few = demo.traces_file.with_name("few_verified_traces.jsonl")
    few.write_text("".join(lines[: demo.sizes.few_traces]), encoding="utf-8")
    shutil.rmtree(demo.output / "multi_stage_sft", ignore_errors=True)
    demo.train(sft.main, "multi_stage_sft", "base", few)
    demo.train(grpo.main, "multi_stage", "multi_stage_sft", demo.problems_file)


STAGES: dict[str, Callable[[Demo], None]] = {
    "base": base,
    "distil": distil,
    "zero": zero,
    "multi_stage": multi_stage,
}
"""The stages, in order."""
