"""Trains a recipe on all nodes of the job, through `open-r1 launch`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from open_r1.launch.recipe import find_accelerator, find_recipe, read_recipe
from open_r1.launch.slurm.arguments import by_name, parse_arguments, shell_words, split_args
from open_r1.launch.slurm.job import Job, current_job, finish, run_step, step
from open_r1.options.annotations import Range

USAGE = "{model} {task} {suffix of the recipe} {accelerator} ['options'], or by name"
DESCRIPTION = """Trains recipes/{model}/{task}/config_{suffix}.yaml on all nodes of the job, with
recipes/accelerate_configs/{accelerator}.yaml.

    sbatch --nodes=1 slurm/train.slurm Qwen2.5-1.5B-Instruct grpo demo zero2 '--learning_rate 2e-6'
    sbatch --nodes=2 slurm/train.slurm --model Qwen2.5-1.5B-Instruct --task grpo --config demo \\
        --accelerator zero2 --args --learning_rate 2e-6

Before a time limit (SIGUSR1) and on preemption, training saves a checkpoint. The job is requeued and resumes.
"""
REST = "Options of the recipe, such as --learning_rate 2e-6. They come last."


@dataclass(kw_only=True)
class JobOptions:
    """Recipe and layout."""

    model: str
    """Name of the folder in recipes/."""
    task: str
    """sft or grpo."""
    config: str
    """Suffix of the recipe: `demo` for config_demo.yaml."""
    accelerator: str = "ddp"
    """Name of a file in recipes/accelerate_configs."""
    dp: Annotated[int | None, Range(at_least=1)] = None
    """Number of generators, if the recipe starts vLLM servers."""
    tp: Annotated[int | None, Range(at_least=1)] = None
    """GPUs per generator."""


BY_POSITION = ("model", "task", "config", "accelerator")


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of the job."""
    command = training_words(words)
    job = current_job(environment)
    print(_headline(job), flush=True)
    return finish(run_step(step(command, job.nodes)), job)


def training_words(words: Sequence[str]) -> list[str]:
    """`open-r1 launch ...`. Raises UserError for a recipe, an accelerator or an option that is not there."""
    before, extra = split_args(words)
    if before and not before[0].startswith("-"):
        extra = [word for text in before[len(BY_POSITION) :] for word in shell_words(text)] + extra
        before = by_name(before[: len(BY_POSITION)], BY_POSITION)
    options, _ = parse_arguments(before, JobOptions, "slurm/train.slurm", USAGE, DESCRIPTION, REST)
    recipe = find_recipe(f"recipes/{options.model}/{options.task}/config_{options.config}.yaml")
    find_accelerator(options.accelerator)
    read_recipe(str(recipe), extra)
    command = ["open-r1", "launch", "--accelerator", options.accelerator]
    for name in ("dp", "tp"):
        if getattr(options, name) is not None:
            command += [f"--{name}", str(getattr(options, name))]
    return [*command, str(recipe), *extra]


def _headline(job: Job) -> str:
    times = f", continued {job.restarts} times" if job.restarts else ""
    return f"Job {job.number} on {job.nodes} node{'s' if job.nodes > 1 else ''}{times}."
