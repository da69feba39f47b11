"""Trains a recipe on all nodes of the job, through `open-r1 launch`."""

from collections.abc import Mapping, Sequence

from open_r1.engine.arguments import positive
from open_r1.launch.recipe import find_accelerator, find_recipe, read_recipe
from open_r1.launch.slurm.job import Job, current_job, finish, run_step, step
from open_r1.launch.slurm.words import Parser, named, shell_words, split_args

USAGE = "{model} {task} {suffix of the recipe} {accelerator} ['options'], or by name"
DESCRIPTION = """Trains recipes/{model}/{task}/config_{suffix}.yaml on all nodes of the job, with
recipes/accelerate_configs/{accelerator}.yaml.

    sbatch --nodes=1 slurm/train.slurm Qwen2.5-1.5B-Instruct grpo demo zero2 '--learning_rate 2e-6'
    sbatch --nodes=2 slurm/train.slurm --model Qwen2.5-1.5B-Instruct --task grpo --config demo \\
        --accelerator zero2 --args --learning_rate 2e-6

A time limit (SIGUSR1 before it) or a preemption saves a checkpoint; the job is put into the queue again and continues.
"""
BY_POSITION = ("model", "task", "config", "accelerator")


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of the job."""
    command = training_words(words)
    job = current_job(environment)
    print(_began(job), flush=True)
    return finish(run_step(step(command, job.nodes)), job)


def training_words(words: Sequence[str]) -> list[str]:
    """`open-r1 launch ...`. Raises UserError for a recipe, an accelerator or an option that is not there."""
    before, extra = split_args(words)
    if before and not before[0].startswith("-"):
        extra = [word for text in before[len(BY_POSITION) :] for word in shell_words(text)] + extra
        before = named(before[: len(BY_POSITION)], BY_POSITION)
    parser = Parser("slurm/train.slurm", USAGE, DESCRIPTION)
    parser.option("model", "folder in recipes/", required=True)
    parser.option("task", "sft or grpo", required=True)
    parser.option("config", "suffix of the recipe: demo is config_demo.yaml", required=True)
    parser.option("accelerator", "one of recipes/accelerate_configs (default: ddp)")
    parser.option("dp", "generators, where a recipe starts vLLM servers", positive)
    parser.option("tp", "GPUs that share one generator", positive)
    options = parser.read(before)
    accelerator = options.accelerator or "ddp"
    recipe = find_recipe(f"recipes/{options.model}/{options.task}/config_{options.config}.yaml")
    find_accelerator(accelerator)
    read_recipe(str(recipe), extra)
    command = ["open-r1", "launch", "--accelerator", accelerator]
    for name in ("dp", "tp"):
        if getattr(options, name) is not None:
            command += [f"--{name}", str(getattr(options, name))]
    return [*command, str(recipe), *extra]


def _began(job: Job) -> str:
    times = f", continued {job.restarts} times" if job.restarts else ""
    return f"Job {job.number} on {job.nodes} node{'s' if job.nodes > 1 else ''}{times}."
