"""Command-line options of every command that has a model write: evaluate, ask, generate."""

import argparse
import re

from open_r1.engine.choose import DTYPES, ENGINES, EngineOptions


def add_engine_options(parser: argparse.ArgumentParser, *, servers: bool = True, required: bool = True) -> None:
    """The options that say which model writes, and through which engine; without `servers`, those of an
    OpenAI-compatible server are left to the caller (`base_url`, `concurrency`)."""
    parser.add_argument("--model", required=required, metavar="M", help="hub id, local folder, or a server's model")
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="default: openai if a server is given, else vllm if on GPUs, else transformers",
    )
    group.add_argument("--revision", metavar="R", help="of the model on the hub")
    group.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    group.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="default: float32 on a CPU, else the checkpoint's"
    )
    group.add_argument(
        "--max-tokens-per-batch", type=positive, metavar="N", help="transformers: tokens decoded at once"
    )
    group.add_argument(
        "--tensor-parallel-size", type=positive, default=1, metavar="N", help="vllm: GPUs that share one engine"
    )
    group.add_argument("--data-parallel-size", type=positive, metavar="N", help="vllm: engines; default: by the GPUs")
    group.add_argument(
        "--engines-per-gpu", type=positive, default=1, metavar="N", help="vllm: 2 to 4 fill a GPU with a small model"
    )
    group.add_argument(
        "--gpu-memory-utilization",
        type=share,
        metavar="S",
        help="vllm: share of each GPU's memory (default 0.9), or of a CPU's (0.4); native: for keys and values (0.6)",
    )
    group.add_argument(
        "--max-num-seqs",
        type=positive,
        default=512,
        metavar="N",
        help="vllm, native: answers written at once",
    )
    group.add_argument("--enforce-eager", action="store_true", help="vllm, native: starts sooner, decodes slower")
    if not servers:
        return
    group.add_argument("--base-url", metavar="URL", help="OpenAI-compatible server; its key: OPENAI_API_KEY")
    group.add_argument("--concurrency", type=positive, default=64, metavar="N", help="requests under way at a server")


def engine_options(args: argparse.Namespace) -> EngineOptions:
    """The engine that the parsed options ask for."""
    return EngineOptions(
        model=args.model,
        engine=args.engine,
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        dtype=args.dtype,
        max_tokens_per_batch=args.max_tokens_per_batch,
        tensor_parallel=args.tensor_parallel_size,
        data_parallel=args.data_parallel_size,
        engines_per_gpu=args.engines_per_gpu,
        gpu_memory_utilization=args.gpu_memory_utilization,
        max_num_seqs=args.max_num_seqs,
        enforce_eager=args.enforce_eager,
        base_url=args.base_url,
        concurrency=args.concurrency,
    )


def with_dashes(argv: list[str]) -> list[str]:
    """`--num_samples` as `--num-samples`: both are common."""
    return [re.sub(r"^--[a-z_]+", lambda m: m.group().replace("_", "-"), word) for word in argv]


def positive(text: str) -> int:
    """A number from 1 on, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 1")
    return int(text)


def share(text: str) -> float:
    """A number above 0 and up to 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0 and up to 1")
    return value


def quiet() -> None:
    """Takes away the bars of loading, which would stand among ours."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
