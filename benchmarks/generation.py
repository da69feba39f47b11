"""Measures decoding: tokens/s of the native engine, of our vLLM engine and of plain `LLM.generate`, beside what the
memory allows.

    python benchmarks/generation.py --shape 1.5b --sequences 64 512 1024 --cases native native-training
    python benchmarks/generation.py --shape 1.5b --sequences 512 --cases native --lengths lognormal --tokens 512
    python benchmarks/generation.py --shape 1.5b --sequences 64 512 1024 --engines 1 2
    python benchmarks/generation.py --shape 135m --engines 1 2 4 --cases ours
    python benchmarks/generation.py --shape small --sequences 8 --tokens 16 --eager --memory 0.2    # CPU

The model has random weights of the shape. Prompts are random tokens, 16 completions each; every completion has exactly
`--tokens` tokens (`--lengths lognormal`: at most so many, log-normal), sampled at temperature 1, and the logprob of
each comes back. Before each measurement half as many sequences warm up. `native` decodes with a bfloat16 copy,
`native-training` with the copy that GRPO uses. `LLM.generate` has default options except for memory, context length
and batch limit, which it shares with ours.

The floor of a decoding step is the time to read the weights once and every live key and value once at --bandwidth,
by default what a copy of a large tensor reaches.
"""

import argparse
import functools
import gc
import json
import os
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
CASES = ("native", "native-training", "ours", "plain")


def floor_seconds(shape: str, sequences: int, prompt: int, tokens: int, engines: int, bandwidth: float) -> float:
    """Seconds to read, for each of `tokens` steps, the bfloat16 weights (of every engine) and all keys and values."""
    width, mlp, layers, heads, kv_heads, vocabulary, _ = SHAPES[shape]
    head = width // heads
    attention = width * (heads + 2 * kv_heads) * head + heads * head * width
    weights = 2 * (layers * (attention + 3 * width * mlp) + vocabulary * width)
    entry = 2 * 2 * layers * kv_heads * head
    live = sum(sequences * entry * (prompt + i) for i in range(tokens))
    return (tokens * weights * engines + live) / bandwidth


def save_model(shape: str, folder: Path) -> None:
    """Random weights and a tokenizer of the same vocabulary, as a normal folder."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    model = build_model(shape, "sdpa", torch.bfloat16, "cuda" if torch.cuda.is_available() else "cpu")
    model.save_pretrained(folder)
    vocabulary = {f"t{i} ": i for i in range(SHAPES[shape][5])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="t1 "))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="t0 ", pad_token="t0 ").save_pretrained(folder)
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def draw_prompts(args: argparse.Namespace, count: int, seed: int) -> list[list[int]]:
    """`count` prompts of `--prompt` random tokens."""
    rng = random.Random(seed)
    return [[rng.randrange(2, SHAPES[args.shape][5]) for _ in range(args.prompt)] for _ in range(count)]


def draw_limits(args: argparse.Namespace, count: int, seed: int) -> list[int]:
    """Tokens of each completion."""
    if args.lengths == "fixed":
        return [args.tokens] * count
    return draw_lengths(count, median=0.65 * args.tokens, mean=0.85 * args.tokens, cap=args.tokens, seed=seed)


def draw_requests(args: argparse.Namespace, sequences: int, seed: int) -> list[Any]:
    """What Open R1's engines are asked: a group a prompt, or with lengths of their own a request a completion."""
    from open_r1.engine.protocol import Request, Sampling

    group = min(GROUP, sequences)
    prompts = draw_prompts(args, sequences // group, seed)
    if args.lengths == "fixed":
        sampling = Sampling(n=group, max_tokens=args.tokens, top_p=args.top_p)
        return [Request(i, prompt, replace(sampling, seed=i)) for i, prompt in enumerate(prompts)]
    limits = draw_limits(args, sequences, seed)
    return [
        Request(i, prompts[i // group], Sampling(max_tokens=limit, top_p=args.top_p, seed=i))
        for i, limit in enumerate(limits)
    ]


class Native:
    """Open R1's native engine."""

    def __init__(self, args: argparse.Namespace, folder: Path, engines: int, training: bool = False) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from open_r1.engine.native.engine import NativeEngine, NativeOptions
        from open_r1.engine.native.model import training_copy

        cuda = torch.cuda.is_available()
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16 if cuda else torch.float32, device_map="cuda" if cuda else None
        )
        options = NativeOptions(
            max_num_seqs=max(args.sequences), memory=args.memory, compile=not args.eager, page_size=args.page_size
        )
        self.engine = NativeEngine(
            training_copy(model) if training else model,
            AutoTokenizer.from_pretrained(folder),
            max_model_len=args.prompt + args.tokens,
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


class Ours:
    """Open R1's vLLM engine."""

    def __init__(self, args: argparse.Namespace, folder: Path, engines: int) -> None:
        from transformers import AutoTokenizer

        from open_r1.engine.vllm_engine import VLLMEngine, VLLMOptions

        options = VLLMOptions(
            str(folder),
            engines_per_device=engines,
            gpu_memory_utilization=args.memory,
            max_num_seqs=max(8, max(args.sequences) // engines),
            enforce_eager=args.eager,
            log_dir=args.log_dir,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.engine = VLLMEngine(options, tokenizer, max_model_len=args.prompt + args.tokens)
        self.engine.start()

    def run(self, requests: list[Any]) -> int:
        """Decodes; returns the number of tokens."""
        groups = self.engine.generate(requests)
        return sum(len(c.token_ids or []) for completions in groups for c in completions)

    def close(self) -> None:
        """Ends the engines."""
        self.engine.close()


class Plain:
    """vLLM's `LLM.generate`."""

    def __init__(self, args: argparse.Namespace, folder: Path, engines: int) -> None:
        from vllm import LLM

        self.llm = LLM(
            str(folder),
            max_model_len=args.prompt + args.tokens,
            gpu_memory_utilization=args.memory,
            max_num_seqs=max(args.sequences),
            enforce_eager=args.eager,
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


def measure(args: argparse.Namespace, folder: Path, case: str, engines: int) -> None:
    """Starts one case's engine and prints and appends a line for each number of sequences."""
    began = time.perf_counter()
    opened: dict[str, Any] = {
        "native": Native,
        "native-training": functools.partial(Native, training=True),
        "ours": Ours,
        "plain": Plain,
    }
    engine = opened[case](args, folder, engines)
    start = time.perf_counter() - began
    for sequences in args.sequences:
        engine.run(draw_requests(args, max(1, sequences // 2), seed=-1))
        rates, tokens, seconds = [], 0, 0.0
        for repeat in range(args.repeats):
            requests = draw_requests(args, sequences, seed=repeat)
            began = time.perf_counter()
            tokens = engine.run(requests)
            seconds = time.perf_counter() - began
            rates.append(tokens / seconds)
        floor = floor_seconds(args.shape, sequences, args.prompt, args.tokens, engines, args.bandwidth)
        rate = statistics.median(rates)
        line = {
            "case": f"{case}, {engines} engine(s)" if case == "ours" else case,
            "shape": args.shape,
            "sequences": sequences,
            "tokens": args.tokens,
            "lengths": args.lengths,
            "mean_tokens": round(tokens / sequences, 1),
            "top_p": args.top_p,
            "tokens_per_second": round(rate),
            "range": [round(min(rates)), round(max(rates))],
            "floor_tokens_per_second": round(tokens / floor),
            "bandwidth": round(args.bandwidth / 1e9) * 1e9,
            "share_of_floor": round(rate * floor / tokens, 3),
            "start_seconds": round(start, 1),
        }
        print(
            f"{args.shape:>5}  {line['case']:<20} {sequences:>5} sequences  {line['tokens_per_second']:>9,} tokens/s "
            f"({line['range'][0]:,} to {line['range'][1]:,})  {line['share_of_floor']:.1%} of the floor's "
            f"{line['floor_tokens_per_second']:,}  start {start:.0f} s",
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
    parser.add_argument("--engines", type=int, nargs="+", default=[1], help="ours: engines on the GPU")
    parser.add_argument("--sequences", type=int, nargs="+", default=[64, 512, 1024])
    parser.add_argument("--tokens", type=int, default=512, help="of each completion")
    parser.add_argument("--lengths", choices=["fixed", "lognormal"], default="fixed")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--page-size", type=int, default=64, help="native: tokens of a page")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--memory", type=float, default=0.6, help="share of the GPU's memory")
    parser.add_argument("--bandwidth", type=float, help="bytes/s that memory reaches; default: measured")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs and no compilation")
    parser.add_argument("--model", type=Path, help="a folder to use (and to make, if it is not there)")
    parser.add_argument("--log-dir", type=Path, help="where the engines' logs go")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--inner", nargs=2, metavar=("CASE", "ENGINES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner is not None:
        return measure(args, args.model, args.inner[0], int(args.inner[1]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.model or Path(temporary) / args.shape
        if not (folder / "config.json").exists():
            save_model(args.shape, folder)
        bandwidth = args.bandwidth or memory_bandwidth()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for case in args.cases:
            for engines in args.engines if case == "ours" else [1]:
                inner = ["--model", str(folder), "--bandwidth", str(bandwidth), "--inner", case, str(engines)]
                subprocess.run([sys.executable, __file__, *sys.argv[1:], *inner], check=False, env=dict(os.environ))
    return None


if __name__ == "__main__":
    main()
