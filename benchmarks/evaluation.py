r"""Measures `open-r1 evaluate` beside plain `LLM.generate` of vLLM, on the same requests.

    python benchmarks/evaluation.py --model M --data-dir data --task math_500 --limit 100 --max-new-tokens 256
    python benchmarks/evaluation.py --model M --data-dir data --limit 12 --num-samples 2 --max-new-tokens 64 \
        --memory 0.15 --eager    # CPU

Both engines are started before the first measurement and take turns, the other one first each time: ours with
grading and every sample synced to disk, vLLM's with the same prompts as token ids and the same sampling parameters
(seeds excepted, which on a CPU ours follows). Prints tokens/s of each repeat, and the median ratio of the pairs.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from open_r1.engine.choose import EngineOptions, open_engine
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
        data_parallel=1,
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
        direct = direct or start_plain(args, longest, engine.engine.dtype)  # type: ignore[attr-defined]
        for side in (ours, plain) if repeat % 2 else (plain, ours):
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
    engine.engine.close()
    os._exit(0)  # vLLM's threads have nothing left to do


def start_plain(args: argparse.Namespace, max_model_len: int, dtype: str) -> Any:
    """vLLM's own front end, with its defaults but for memory, lengths and data type, which it shares with ours."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    from vllm import LLM

    return LLM(
        args.model,
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_seqs=args.max_num_seqs,
        gpu_memory_utilization=args.memory,
        enforce_eager=args.eager,
    )


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
        )
        for ask in asks
    ]
    began = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    return sum(len(output.outputs[0].token_ids) for output in outputs) / seconds


if __name__ == "__main__":
    main()
