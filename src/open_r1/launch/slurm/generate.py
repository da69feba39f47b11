"""Completions for a dataset: a vLLM server over all nodes of the job, and `open-r1 generate` as its client."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from open_r1.generate import read_options
from open_r1.generation.generate import read_problems
from open_r1.launch.slurm.arguments import parse_arguments, split_args
from open_r1.launch.slurm.job import current_job, finish, step
from open_r1.launch.slurm.server import ServerJobOptions, ServerStep, head_of, run_beside

USAGE = "--hf-dataset D --model M [--tp N] [--pp N] [--ray] [options of open-r1 generate]"
DESCRIPTION = """Starts a vLLM server on all nodes of the job, waits until it answers, and runs `open-r1 generate`
with it. All options of `open-r1 generate` work here too.

    sbatch --nodes=2 slurm/generate.slurm --hf-dataset AI-MO/NuminaMath-TIR --prompt-column problem \\
        --model deepseek-ai/DeepSeek-R1 --temperature 0.6 --max-new-tokens 8192 --hf-output-dataset me/numina-r1

Rows are saved as they finish. A job that is stopped and requeued continues where it stopped.
"""
REST = "Options of `open-r1 generate`. They also work without --args."


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of the job. Raises UserError if the server does not come up or ends early."""
    before, extra = split_args(words)
    options, rest = parse_arguments(
        before, ServerJobOptions, "slurm/generate.slurm", USAGE, DESCRIPTION, REST, others=True
    )
    client = client_options(options.model, [*rest, *extra], environment)
    check_client(client)
    plan, job = options.plan(), current_job(environment)
    server = ServerStep(plan, job, head_of(environment))
    with server.process:
        server.wait_until_answering()
        command = ["open-r1", "generate", *client, "--vllm-server-url", f"{server.url}/v1"]
        status = run_beside(server, step(command, 1, overlap=True))
    return finish(status, job)


def client_options(model: str, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Options of `open-r1 generate`. Without --output, names decide the folder; a job of an array takes its shard."""
    names = [word.split("=")[0].replace("_", "-") for word in words]
    options = ["--model", model, *words]
    if "--output" not in names and "--config" not in names:
        dataset = next(
            (after for name, after in zip(names, words[1:], strict=False) if name == "--hf-dataset"), "dataset"
        )
        options += ["--output", f"data/{Path(dataset).name}-{Path(model).name}"]
    count = int(environment.get("SLURM_ARRAY_TASK_COUNT", "1"))
    if count > 1 and "--shard" not in names:
        index = int(environment["SLURM_ARRAY_TASK_ID"]) - int(environment["SLURM_ARRAY_TASK_MIN"])
        options += ["--shard", f"{index}/{count}"]
    return options


def check_client(options: Sequence[str]) -> None:
    """Raises UserError, before a server is started, for what the client would refuse of its options and its data."""
    args, _ = read_options(options)
    read_problems(args.hf_dataset, args)
