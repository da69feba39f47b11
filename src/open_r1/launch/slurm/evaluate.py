"""Benchmarks a model on the GPUs of one node, through `open-r1 evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from open_r1.launch.slurm.arguments import by_name, parse_arguments, split_args
from open_r1.launch.slurm.job import current_job, finish, run_step, step
from open_r1.options.annotations import Range

USAGE = "--model M --task T[,T] [--revision R] [--tp N] [--dp N] [--args ...]"
DESCRIPTION = """Benchmarks a model, as `open-r1 evaluate` does.

    sbatch slurm/evaluate.slurm --model deepseek-ai/DeepSeek-R1-Distill-Qwen-32B --task math_500 --tp 2
    sbatch slurm/evaluate.slurm runs/grpo gsm8k --args --num-samples 4 --max-new-tokens 2048

Samples are saved as they finish. A job that is stopped and requeued continues where it stopped.
"""
REST = "Options of `open-r1 evaluate`, such as --num-samples 4. They come last."


@dataclass(kw_only=True)
class JobOptions:
    """Model and benchmarks."""

    model: str
    """Hub id or folder."""
    task: str
    """Benchmarks, separated by commas."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub."""
    tp: Annotated[int | None, Range(at_least=1)] = None
    """GPUs that share one engine."""
    dp: Annotated[int | None, Range(at_least=1)] = None
    """Number of engines. Default: as many as the GPUs allow."""


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of the job."""
    command = evaluation_words(words)
    job = current_job(environment)
    return finish(run_step(step(command, 1)), job)


def evaluation_words(words: Sequence[str]) -> list[str]:
    """`open-r1 evaluate ...`. Raises UserError for an option that is not there."""
    before, extra = split_args(words)
    before = by_name(before, ("model", "task"))
    options, _ = parse_arguments(before, JobOptions, "slurm/evaluate.slurm", USAGE, DESCRIPTION, REST)
    command = ["open-r1", "evaluate", "--model", options.model, "--tasks", options.task]
    for name, value in (
        ("revision", options.revision),
        ("tensor-parallel-size", options.tp),
        ("data-parallel-size", options.dp),
    ):
        if value is not None:
            command += [f"--{name}", str(value)]
    return command + extra
