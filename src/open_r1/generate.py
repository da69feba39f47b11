"""Reasoning traces at scale: completions for every problem of a dataset, graded, in shards that survive any kill.

    open-r1 generate --hf-dataset AI-MO/NuminaMath-TIR --prompt-column problem --num-generations 4 \\
        --model deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --max-new-tokens 8192 --output data/numina-r1-7b
    open-r1 generate --hf-dataset problems.jsonl --prompt-column problem --model NAME \\
        --vllm-server-url http://node1:8000/v1,http://node2:8000/v1 --input-batch-size 512 --output data/traces

The same command continues a run that was interrupted; no row is generated twice. The folder loads with
`datasets.load_dataset`, trains with `open-r1 sft` and `open-r1 grpo`, and `open-r1 data verify` keeps what is right.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from open_r1.data.load import load_split
from open_r1.engine.arguments import add_engine_options, quiet, with_dashes
from open_r1.engine.choose import open_engine
from open_r1.errors import UserError
from open_r1.generation.arguments import (
    add_data_options,
    add_sampling_options,
    engine_of,
    output_folder,
    sampling_of,
)
from open_r1.generation.problems import Problems
from open_r1.generation.run import Generation
from open_r1.generation.store import ShardStore
from open_r1.generation.summary import begin, finish, summary_table
from open_r1.report.hub import create_dataset_repo, push_dataset
from open_r1.run.entry import exit_with_sentence


def main(argv: list[str] | None = None) -> None:
    """Generates as `argv` says (default: the command line). Raises UserError for what the user can mend."""
    args = parser().parse_args(with_dashes(sys.argv[1:] if argv is None else argv))
    if args.hf_output_dataset and args.shard != (0, 1):
        raise UserError("hf_output_dataset is for whole datasets: `open-r1 data merge` the parts, then `data push`.")
    if args.hf_output_dataset:
        create_dataset_repo(args.hf_output_dataset, args.private)
    generate(args)
    if args.hf_output_dataset:
        print(f"{push_dataset(args.output, args.hf_output_dataset)}")


def generate(args: argparse.Namespace) -> None:
    """One run in `args.output`, begun or continued."""
    quiet()
    console = Console()
    sampling, options = sampling_of(args), engine_of(args)
    problems = read_problems(args)
    digest, longest = problems.digest()
    engine = open_engine(options)
    settings = {
        "model": None if engine.identity.get("weights") else args.model,
        "revision": args.revision,
        "weights": engine.identity.get("weights"),
        "dtype": args.dtype,
        "prompt_column": args.prompt_column,
        "prompt_template": args.prompt_template,
        "system_prompt": args.system_prompt,
        "answer_column": args.answer_column,
        "data": digest,
        "num_generations": sampling.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "shard": "/".join(map(str, args.shard)),
    }
    folder = output_folder(args.output, args.shard)
    store = ShardStore(folder, settings, len(problems), sampling.n)
    begin(folder, args.model, [args.hf_dataset])
    run = Generation(
        problems,
        range(args.shard[0], len(problems), args.shard[1]),
        engine,
        sampling,
        store,
        rows_per_shard=args.rows_per_shard,
        skip_long=args.skip_long_prompts,
    )
    run.run(longest, console)
    engine.engine.close()
    console.print(summary_table(finish(folder, len(run.too_long))))
    console.print(f"The rows are in {folder}.", soft_wrap=True, highlight=False)


def read_problems(args: argparse.Namespace) -> Problems:
    """The dataset as prompts."""
    return Problems(
        load_split(args.hf_dataset, config=args.hf_dataset_config, split=args.hf_dataset_split),
        args.prompt_column,
        template=args.prompt_template,
        system_prompt=args.system_prompt,
        answer_column=args.answer_column,
    )


def parser() -> argparse.ArgumentParser:
    """The options of `open-r1 generate`: those of huggingface/open-r1, and the engine's."""
    parser = argparse.ArgumentParser(
        prog="open-r1 generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the rows")
    parser.add_argument("--hf-output-dataset", metavar="ID", help="push the finished folder to the hub")
    parser.add_argument("--private", action="store_true", help="with --hf-output-dataset: not public")
    add_data_options(parser)
    add_sampling_options(parser, num_generations=1)
    add_engine_options(parser, servers=False)
    return parser


if __name__ == "__main__":
    exit_with_sentence(main)
