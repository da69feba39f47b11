"""Serves a model with vLLM over all nodes of the job, until the job is cancelled or its time is up."""

from collections.abc import Mapping, Sequence

from open_r1.launch.slurm.arguments import parse_arguments, split_args
from open_r1.launch.slurm.job import current_job
from open_r1.launch.slurm.server import ServerJobOptions, ServerStep, head_of

USAGE = "--model M [--tp N] [--pp N] [--dp N] [--port N] [--ray] [--args options of vllm serve]"
DESCRIPTION = """Starts an OpenAI-compatible vLLM server on all nodes of the job. The log shows its address.

    sbatch --nodes=2 slurm/serve.slurm --model deepseek-ai/DeepSeek-R1 --args --max-model-len 32768
"""
REST = "Options of `vllm serve`, such as --max-model-len 32768. They come last."


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status of the job."""
    before, extra = split_args(words)
    options, _ = parse_arguments(before, ServerJobOptions, "slurm/serve.slurm", USAGE, DESCRIPTION, REST)
    plan, job = options.plan(extra), current_job(environment)
    server = ServerStep(plan, job, head_of(environment))
    with server.process as process:
        server.wait_until_answering()
        print(f"Serving {plan.model} at {server.url}/v1 until the job ends: scancel {job.number}", flush=True)
        while process.wait(60.0) is None:
            pass
        server.check_alive()
    return 0
