"""Command-line options of generating, shared by `open-r1 generate` and `open-r1 data pass-rate`."""

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_r1.engine.arguments import engine_options, positive
from open_r1.engine.choose import EngineOptions
from open_r1.engine.protocol import Sampling, check_sampling
from open_r1.errors import UserError
from open_r1.generation.problems import PLAIN


def add_data_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Where the problems are, and how they become prompts."""
    group = parser.add_argument_group("problems")
    group.add_argument("--hf-dataset", required=required, metavar="D", help="hub id, local folder or file")
    group.add_argument("--hf-dataset-config", metavar="C", help="configuration of the hub dataset")
    group.add_argument("--hf-dataset-split", default="train", metavar="S", help="slices such as train[:100] work")
    group.add_argument("--prompt-column", default="prompt", metavar="NAME", help="default: %(default)s")
    group.add_argument(
        "--prompt-template",
        default=PLAIN,
        metavar="TEXT",
        help="Jinja, or a file with it: {{ instruction }} is the prompt column, other columns go by their names",
    )
    group.add_argument("--system-prompt", metavar="TEXT")
    group.add_argument("--answer-column", metavar="NAME", help="right answers; default: answer, else solution, if any")
    group.add_argument("--skip-long-prompts", action="store_true", help="leave out prompts beyond the model's context")


def add_sampling_options(parser: argparse.ArgumentParser, *, num_generations: int) -> None:
    """How completions are sampled, by which model, how many at a time, and where the rows go."""
    sampling = parser.add_argument_group("sampling")
    number: Any = {"type": positive, "metavar": "N"}
    sampling.add_argument(
        "--num-generations", **number, default=num_generations, help="a problem; default: %(default)s"
    )
    sampling.add_argument("--temperature", type=float, default=0.6, metavar="T", help="default: %(default)s")
    sampling.add_argument("--top-p", type=float, default=0.95, metavar="P", help="default: %(default)s")
    sampling.add_argument("--max-new-tokens", **number, default=8192, help="default: %(default)s")
    sampling.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    servers = parser.add_argument_group("servers")
    servers.add_argument(
        "--vllm-server-url",
        dest="base_url",
        metavar="URL,URL",
        help="OpenAI-compatible servers, with commas between; their key: OPENAI_API_KEY",
    )
    servers.add_argument("--input-batch-size", **number, default=64, help="problems under way at once for each replica")
    servers.add_argument("--client-replicas", **number, default=1, help="multiplies what is under way")
    servers.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="seconds for an answer")
    servers.add_argument("--retries", type=int, default=5, metavar="N", help="default: %(default)s")
    output = parser.add_argument_group("output")
    output.add_argument("--rows-per-shard", **number, default=2000, help="default: %(default)s")
    output.add_argument("--shard", type=shard, default=(0, 1), metavar="I/N", help="only every N-th problem, from I on")


def sampling_of(args: argparse.Namespace) -> Sampling:
    """The sampling that the parsed options ask for. Raises `UserError`."""
    check_sampling(args.temperature, args.top_p)
    if args.temperature == 0 and args.num_generations > 1:
        raise UserError(
            f"num_generations is {args.num_generations} at temperature 0, where all are alike: give "
            "--num-generations 1 or a temperature."
        )
    return Sampling(
        n=args.num_generations,
        temperature=args.temperature,
        top_p=args.top_p,
        max_tokens=args.max_new_tokens,
        seed=args.seed,
    )


def engine_of(args: argparse.Namespace) -> EngineOptions:
    """The engine that the parsed options ask for. Raises `UserError`."""
    if args.retries < 0:
        raise UserError(f"retries is {args.retries}: expected 0 or more.")
    if args.timeout <= 0:
        raise UserError(f"timeout is {args.timeout}: expected seconds, more than 0.")
    args.concurrency = args.input_batch_size * args.client_replicas * args.num_generations
    return replace(engine_options(args), tries=args.retries + 1, timeout=args.timeout)


def output_folder(folder: Path, part: tuple[int, int]) -> Path:
    """`folder`, or the folder in it of one shard of several."""
    index, count = part
    return folder if count == 1 else folder / f"shard-{index:05d}-of-{count:05d}"


def shard(text: str) -> tuple[int, int]:
    """`I/N` with I from 0 to N - 1, for argparse."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with I from 0 to N - 1, such as 0/8")
    return int(match[1]), int(match[2])
