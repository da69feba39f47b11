r"""Measures `open-r1 evaluate --engine vllm` beside plain `LLM.generate` of vLLM, on the same requests.

    python benchmarks/evaluation.py --model M --data-dir data --task math_500 --limit 100 --max-new-tokens 256
    python benchmarks/evaluation.py --model M --data-dir data --limit 12 --num-samples 2 --max-new-tokens 64 \
        --memory 0.15 --eager    # CPU

Both engines are started before the first measurement and take turns, the other one first each time: ours with
grading and every sample synced to disk, vLLM's with the same prompts as token ids, the same sampling parameters, and on
a CPU the same seeds (ours gives vLLM none on GPUs). The engine whose turn it is not is stopped (SIGSTOP), because
vLLM's processes spin while they wait. Prints tokens/s of each repeat, and the median ratio of the pairs.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from open_r1.engine.opening import EngineOptions, open_engine
from open_r1.engine.vllm.installed import sampler_variables
from open_r1.engine.vllm.process import CPU_BATCH
from open_r1.evaluation.plan import plan
from open_r1.evaluation.protocol import protocol_for
from open_r1.evaluation.run import evaluate_task
from open_r1.evaluation.tasks import find_task, load_problems


def main() -> None:
    """Measures the two in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", default="math_500")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int, default=100, help="problems")
    parser.add_argument("--num-samples", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--max-num-seqs", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=float, default=0.4, help="share of the memory, for each of the two")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs and no compilation")
    parser.add_argument("--results", type=Path, help="file that a line of JSON is appended to")
    args = parser.parse_args()
    task = find_task(args.task)
    problems = load_problems(task, args.data_dir, args.limit)
    options = EngineOptions(
        args.model,
        engine="vllm",
        data_parallel_size=1,
        gpu_memory_utilization=args.memory,
        max_num_seqs=args.max_num_seqs,
        enforce_eager=args.eager,
    )
    engine = open_engine(options)
    ours: list[float] = []
    plain: list[float] = []
    direct = None
    for repeat in range(-1, args.repeats):  # the first warms up
        limits: Any = {"num_samples": args.num_samples, "max_new_tokens": args.max_new_tokens, "seed": repeat + 1}
        protocol = protocol_for(task, **limits)
        asks = plan(problems, engine, protocol)
        longest = max(ask.prompt_tokens + ask.max_tokens for ask in asks)
        engine.reserve(longest)
        engine.engine.start()  # type: ignore[attr-defined]
        direct = direct or start_plain(args, longest, engine)
        for side in (ours, plain) if repeat % 2 else (plain, ours):
            with stopped(ours_processes(engine) if side is plain else plain_processes(engine)):
                if side is ours:
                    rate = measure_ours(args.model, task, problems, engine, protocol)
                else:
                    rate = measure_plain(direct, asks, protocol, engine)
            if repeat >= 0:
                side.append(rate)
        if repeat >= 0:
            print(f"open-r1 {ours[-1]:>9,.0f} tokens/s   LLM.generate {plain[-1]:>9,.0f} tokens/s", flush=True)
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    print(f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    if args.results is not None:
        line = {"task": task.name, "ours": ours, "plain": plain, "ratios": ratios, "limit": args.limit}
        with args.results.open("a") as file:
            file.write(json.dumps(line) + "\n")
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(0)  # vLLM's threads have nothing left to do


def start_plain(args: argparse.Namespace, max_model_len: int, engine: Any) -> Any:
    """vLLM's own front end, with its defaults but for memory, lengths and data type, which it shares with ours."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    os.environ.update(sampler_variables() | os.environ)
    from vllm import LLM

    # A prompt in chunks would wind back its request's generator, which torch's on a CPU cannot.
    whole_prompts: Any = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(CPU_BATCH, max_model_len)}
    return LLM(
        args.model,
        dtype=engine.engine.engine.info.dtype,
        max_model_len=max_model_len,
        max_num_seqs=args.max_num_seqs,
        gpu_memory_utilization=args.memory,
        enforce_eager=args.eager,
        **(whole_prompts if on_cpu(engine) else {}),
    )


def ours_processes(engine: Any) -> list[psutil.Process]:
    """Those that decode for ours."""
    (server,) = engine.engine.processes
    return psutil.Process(server.part.process.pid).children(recursive=True)


def plain_processes(engine: Any) -> list[psutil.Process]:
    """Those that decode for `LLM.generate`: vLLM names its own so."""
    others = set(psutil.Process().children(recursive=True)) - set(ours_processes(engine))
    return [process for process in others if any(word.startswith("VLLM::") for word in process.cmdline())]


@contextmanager
def stopped(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """They get no processor time meanwhile."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def on_cpu(engine: Any) -> bool:
    """Whether `engine`, which has started, has no GPU."""
    return not engine.engine.groups[0]


def measure_ours(model: str, task: Any, problems: Any, engine: Any, protocol: Any) -> float:
    """Tokens a second of `open-r1 evaluate`, from the first request to the results on disk."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        results = evaluate_task(task, problems, model, engine, protocol, Path(folder), console=Console(quiet=True))
        seconds = time.perf_counter() - began
    return results["mean_tokens"] * len(problems) * protocol.num_samples / seconds


def measure_plain(llm: Any, asks: Any, protocol: Any, engine: Any) -> float:
    """Tokens a second of `LLM.generate` on these requests."""
    from vllm import SamplingParams

    prompts: Any = [{"prompt_token_ids": ask.prompt} for ask in asks]
    params = [
        SamplingParams(
            temperature=protocol.temperature,
            top_p=protocol.top_p,
            max_tokens=ask.max_tokens,
            stop_token_ids=list(engine.stop_token_ids),
            ignore_eos=True,
            seed=ask.seed if on_cpu(engine) else None,
        )
        for ask in asks
    ]
    began = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    return sum(len(output.outputs[0].token_ids) for output in outputs) / seconds


if __name__ == "__main__":
    main()
