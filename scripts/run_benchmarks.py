#!/usr/bin/env python3
"""Benchmarks a model on a Slurm cluster, a job for each benchmark, or here with --local.

    python scripts/run_benchmarks.py --model-id deepseek-ai/DeepSeek-R1-Distill-Qwen-32B --benchmarks math_500 gpqa
    python scripts/run_benchmarks.py --model-id runs/grpo --benchmarks math_500 --local --args --num-samples 4
    python scripts/run_benchmarks.py --list-benchmarks

Jobs go through slurm/evaluate.slurm. As many GPUs share an engine as the weights need, and the node's others hold
further engines; a model whose size is not known gets one GPU an engine, unless --tp says otherwise. What stands behind
--args is for `open-r1 evaluate`. The same command continues what was interrupted.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1 import evaluate
from open_r1.configs import ModelConfig
from open_r1.errors import UserError
from open_r1.evaluation.tasks import TASKS, find_task
from open_r1.run.entry import exit_with_sentence
from open_r1.run.model_size import model_size, tensor_parallel

SLURM_SCRIPT = Path(__file__).parents[1] / "slurm" / "evaluate.slurm"


def main(argv: Sequence[str] | None = None) -> None:
    """Submits or runs the benchmarks. Raises UserError for what the user can mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--args") if "--args" in words else len(words)
    options, extra = parser().parse_args(words[:split]), words[split + 1 :]
    if options.list_benchmarks:
        return list_benchmarks()
    if options.model_id is None or not options.benchmarks:
        raise UserError("--model-id and --benchmarks are needed: see --help, and --list-benchmarks.")
    tasks = [name for word in options.benchmarks for name in (every_task() if word == "all" else [word])]
    for name in tasks:
        find_task(name)
    if options.trust_remote_code:
        extra.append("--trust-remote-code")
    if options.system_prompt is not None:
        extra += ["--system-prompt", options.system_prompt]
    revision = ["--revision", options.model_revision] if options.model_revision else []
    if options.local:
        return evaluate.main(
            ["--model", options.model_id, "--tasks", ",".join(tasks), *revision, *local_gpus(options), *extra]
        )
    tp = tensor_parallel_size(options, options.num_gpus)
    dp = max(1, options.num_gpus // tp)
    for name in tasks:
        job = ["--model", options.model_id, "--task", name, *revision, "--tp", str(tp), "--dp", str(dp)]
        submit(name, [*job, *(["--args", *extra] if extra else [])])
    return None


def parser() -> argparse.ArgumentParser:
    """The options in front of --args."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-id", metavar="M", help="hub id or local folder")
    parser.add_argument("--model-revision", metavar="R", help="branch, tag or commit on the hub")
    parser.add_argument("--benchmarks", nargs="+", metavar="T", help="names of tasks, files, or all")
    parser.add_argument("--list-benchmarks", action="store_true", help="list the names")
    parser.add_argument("--local", action="store_true", help="run them here, one after another")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--system-prompt", metavar="TEXT", help="default: none")
    parser.add_argument("--tp", type=int, metavar="N", help="GPUs that share an engine; default: by the model's size")
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=int(os.environ.get("SBATCH_GPUS_PER_NODE", "8")),
        metavar="N",
        help="GPUs of a node (default: SBATCH_GPUS_PER_NODE, else 8)",
    )
    parser.add_argument("--gpu-memory", type=float, default=80, metavar="GB", help="of one GPU; default: 80")
    return parser


def list_benchmarks() -> None:
    """Prints each benchmark, where its problems are, and how often each is asked."""
    for task in TASKS.values():
        where = task.source.id if task.source is not None else ""
        print(f"{task.name:<14} {where:<28} {task.samples:>3} samples per problem")


def tensor_parallel_size(options: argparse.Namespace, gpus: int) -> int:
    """GPUs that share an engine."""
    if options.tp is not None:
        return options.tp
    model = ModelConfig(
        model_name_or_path=options.model_id,
        model_revision=options.model_revision or "main",
        trust_remote_code=options.trust_remote_code,
    )
    parameters, heads = model_size(model)
    if parameters is None:
        print(f"The size of {options.model_id} is not known here: one GPU an engine (--tp).")
        return 1
    return tensor_parallel(parameters, heads, gpus, int(options.gpu_memory * 2**30))


def every_task() -> list[str]:
    """All tasks whose data is on the hub; says which are left out."""
    lacking = {name: task.source.lacks for name, task in TASKS.items() if task.source is not None and task.source.lacks}
    for name, what in lacking.items():
        print(f"all: {name} is left out, because its hub dataset has no {what} (docs/evaluation.md).", file=sys.stderr)
    return [name for name in TASKS if name not in lacking]


def local_gpus(options: argparse.Namespace) -> list[str]:
    """Options for the GPUs of this machine; none without a GPU."""
    from open_r1.devices import visible_devices
    from open_r1.engine.vllm.installed import version_of_vllm

    gpus = len(visible_devices())
    if not gpus or version_of_vllm() is None:
        return []
    return ["--tensor-parallel-size", str(tensor_parallel_size(options, gpus))]


def submit(name: str, words: Sequence[str]) -> None:
    """Puts a job into the queue. Raises UserError if Slurm is not there or refuses."""
    if shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: run this on a Slurm cluster's login node, or give --local.")
    command = ["sbatch", "--parsable", f"--job-name=open_r1-{name.replace('/', '_')}", str(SLURM_SCRIPT), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{name}: sbatch refuses the job: {(done.stderr or done.stdout).strip()}")
    print(f"{name}: job {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    exit_with_sentence(main)
