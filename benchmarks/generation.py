"""Measures decoding: tokens/s of the native engine and of vLLM's `LLM.generate`, beside what the memory allows.

    python benchmarks/generation.py --shape 1.5b --sequences 64 512 1024
    python benchmarks/generation.py --shape 1.5b --sequences 512 --cases native --lengths fixed lognormal --top-p 1 0.95
    python benchmarks/generation.py --shape small --sequences 8 --tokens 16 --cases native --eager    # CPU

The model has random weights of the shape. Prompts are random tokens, 16 completions each; every completion has exactly
`--tokens` tokens (`--lengths lognormal`: at most `--cap`, 0.65 of it on average), sampled at temperature 1, and the
logprob of each comes back. Before each measurement half as many sequences warm up. `native` decodes with a bfloat16
copy, `native-training` with the copy that GRPO uses. `LLM.generate` has default options except for memory, context
length and batch limit, which it shares with ours, and CUDA graphs up to that limit.

The floor of a decoding step is the time to read the weights once and every live key and value once at --bandwidth,
by default what a copy of a large tensor reaches.
"""

import argparse
import functools
import gc
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measure import SHAPES, build_model, draw_lengths, environment, memory_bandwidth

GROUP = 16
CASES = ("native", "native-training", "plain")


def floor_seconds(shape: str, sequences: int, prompt: int, tokens: int, bandwidth: float) -> float:
    """Seconds to read, for each of `tokens` steps, the bfloat16 weights and all keys and values."""
    width, mlp, layers, heads, kv_heads, vocabulary, _ = SHAPES[shape]
    head = width // heads
    attention = width * (heads + 2 * kv_heads) * head + heads * head * width
    weights = 2 * (layers * (attention + 3 * width * mlp) + vocabulary * width)
    entry = 2 * 2 * layers * kv_heads * head
    live = sum(sequences * entry * (prompt + i) for i in range(tokens))
    return (tokens * weights + live) / bandwidth


def random_model(shape: str) -> tuple[Any, Any]:
    """Random weights, in bfloat16 on a GPU, and a tokenizer of the same vocabulary."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    cuda = torch.cuda.is_available()
    model = build_model(shape, "sdpa", torch.bfloat16 if cuda else torch.float32, "cuda" if cuda else "cpu")
    vocabulary = {f"t{i} ": i for i in range(SHAPES[shape][5])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="t1 "))
    return model, PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="t0 ", pad_token="t0 ")


def save_model(shape: str, folder: Path) -> None:
    """`random_model` as a normal folder, in bfloat16."""
    model, tokenizer = random_model(shape)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def draw_prompts(args: argparse.Namespace, count: int, seed: int) -> list[list[int]]:
    """`count` prompts of `--prompt` random tokens."""
    rng = random.Random(seed)
    return [[rng.randrange(2, SHAPES[args.shape][5]) for _ in range(args.prompt)] for _ in range(count)]


def longest(args: argparse.Namespace) -> int:
    """Tokens of prompt and completion together, at most."""
    return args.prompt + max(args.tokens, args.cap if "lognormal" in args.lengths else 0)


def draw_limits(args: argparse.Namespace, count: int, seed: int) -> list[int]:
    """Tokens of each completion: log-normal, 0.65 of the cap on average."""
    return draw_lengths(count, median=0.65 * args.cap, mean=0.85 * args.cap, cap=args.cap, seed=seed)


def draw_requests(
    args: argparse.Namespace, sequences: int, seed: int, lengths: str = "fixed", top_p: float = 1.0
) -> list[Any]:
    """What engines are asked: a group a prompt, or with lengths of their own a request a completion."""
    from open_r1.engine.protocol import Request, Sampling

    group = min(GROUP, sequences)
    prompts = draw_prompts(args, sequences // group, seed)
    if lengths == "fixed":
        sampling = Sampling(n=group, max_tokens=args.tokens, top_p=top_p)
        return [Request(i, prompt, replace(sampling, seed=i)) for i, prompt in enumerate(prompts)]
    limits = draw_limits(args, sequences, seed)
    return [
        Request(i, prompts[i // group], Sampling(max_tokens=limit, top_p=top_p, seed=i))
        for i, limit in enumerate(limits)
    ]


class Native:
    """Open R1's native engine."""

    def __init__(self, args: argparse.Namespace, folder: Path | None, training: bool = False) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from open_r1.engine.native.engine import NativeEngine, NativeOptions
        from open_r1.engine.native.model import training_copy

        cuda = torch.cuda.is_available()
        if folder is None:
            model, tokenizer = random_model(args.shape)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.bfloat16 if cuda else torch.float32, device_map="cuda" if cuda else None
            )
            tokenizer = AutoTokenizer.from_pretrained(folder)
        options = NativeOptions(
            max_num_seqs=max(args.sequences), memory=args.memory, compile=not args.eager, page_size=args.page_size
        )
        self.engine = NativeEngine(
            training_copy(model) if training else model,
            tokenizer,
            max_model_len=longest(args),
            options=options,
        )
        self.engine.start()

    def run(self, requests: list[Any]) -> int:
        """Decodes; returns the number of tokens."""
        groups = self.engine.generate(requests)
        return sum(len(c.token_ids or []) for completions in groups for c in completions)

    def close(self) -> None:
        """Frees the memory."""
        self.engine.close()


class Plain:
    """vLLM's `LLM.generate`."""

    def __init__(self, args: argparse.Namespace, folder: Path | None) -> None:
        from vllm import LLM

        graphs: Any = {} if args.eager else {"max_cudagraph_capture_size": max(args.sequences)}
        self.llm = LLM(
            str(folder),
            max_model_len=longest(args),
            gpu_memory_utilization=args.memory,
            max_num_seqs=max(args.sequences),
            enforce_eager=args.eager,
            compilation_config=graphs,
        )

    def run(self, requests: list[Any]) -> int:
        """Decodes; returns the number of tokens."""
        from vllm import SamplingParams

        prompts: Any = [{"prompt_token_ids": request.prompt} for request in requests]
        params = [
            SamplingParams(n=s.n, temperature=1.0, top_p=s.top_p, max_tokens=s.max_tokens, ignore_eos=True, logprobs=0)
            for s in (request.sampling for request in requests)
        ]
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        return sum(len(c.token_ids) for output in outputs for c in output.outputs)

    def close(self) -> None:
        """Nothing: the process ends."""


def measure(args: argparse.Namespace, folder: Path | None, case: str) -> None:
    """Starts one case's engine and prints and appends a line for each number of sequences."""
    began = time.perf_counter()
    opened: dict[str, Any] = {
        "native": Native,
        "native-training": functools.partial(Native, training=True),
        "plain": Plain,
    }
    engine = opened[case](args, folder)
    start = time.perf_counter() - began
    for sequences, lengths, top_p in itertools.product(args.sequences, args.lengths, args.top_p):
        engine.run(draw_requests(args, max(1, sequences // 2), -1, lengths, top_p))
        rates, tokens, seconds = [], 0, 0.0
        for repeat in range(args.repeats):
            requests = draw_requests(args, sequences, repeat, lengths, top_p)
            began = time.perf_counter()
            tokens = engine.run(requests)
            seconds = time.perf_counter() - began
            rates.append(tokens / seconds)
        floor = floor_seconds(args.shape, sequences, args.prompt, tokens // sequences, args.bandwidth)
        rate = statistics.median(rates)
        line = {
            "case": case,
            "shape": args.shape,
            "sequences": sequences,
            "tokens": args.tokens,
            "lengths": lengths,
            "mean_tokens": round(tokens / sequences, 1),
            "top_p": top_p,
            "tokens_per_second": round(rate),
            "range": [round(min(rates)), round(max(rates))],
            "floor_tokens_per_second": round(tokens / floor),
            "bandwidth": round(args.bandwidth / 1e9) * 1e9,
            "share_of_floor": round(rate * floor / tokens, 3),
            "start_seconds": round(start, 1),
        }
        print(
            f"{args.shape:>5}  {case:<16} {sequences:>5} x {tokens // sequences} {lengths}, top-p {top_p:g}  "
            f"{rate:>9,.0f} tokens/s ({min(rates):,.0f} to {max(rates):,.0f})  {line['share_of_floor']:.1%} of the "
            f"floor's {line['floor_tokens_per_second']:,}  start {start:.0f} s",
            flush=True,
        )
        if args.results is not None:
            args.results.parent.mkdir(parents=True, exist_ok=True)
            with args.results.open("a") as file:
                file.write(json.dumps(line | environment()) + "\n")
    engine.close()


def main() -> None:
    """Measures every case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sequences", type=int, nargs="+", default=[64, 512, 1024])
    parser.add_argument("--tokens", type=int, default=512, help="of each completion")
    parser.add_argument("--lengths", nargs="+", choices=["fixed", "lognormal"], default=["fixed"])
    parser.add_argument("--cap", type=int, default=512, help="most tokens of a completion of log-normal length")
    parser.add_argument("--top-p", type=float, nargs="+", default=[1.0])
    parser.add_argument("--page-size", type=int, default=64, help="native: tokens of a page")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--memory", type=float, default=0.6, help="share of the GPU's memory")
    parser.add_argument("--bandwidth", type=float, help="bytes/s that memory reaches; default: measured")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs and no compilation")
    parser.add_argument("--model", type=Path, help="a folder to use (and to make, if it is not there); vLLM needs one")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--inner", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner is not None:
        return measure(args, args.model, args.inner)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.model or (Path(temporary) / args.shape if "plain" in args.cases else None)
        if folder is not None and not (folder / "config.json").exists():
            save_model(args.shape, folder)
        bandwidth = args.bandwidth or memory_bandwidth()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for case in args.cases:
            inner = ["--bandwidth", str(bandwidth), "--inner", case, *(["--model", str(folder)] if folder else [])]
            subprocess.run([sys.executable, __file__, *sys.argv[1:], *inner], check=False)
    return None


if __name__ == "__main__":
    main()
