"""Reasoning traces at scale: completions for every problem of a dataset, graded, in shards that survive any kill.

    open-r1 generate --hf-dataset AI-MO/NuminaMath-TIR --prompt-column problem --num-generations 4 \\
        --model deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --max-new-tokens 8192 --output data/numina-r1-7b
    open-r1 generate --hf-dataset problems.jsonl --prompt-column problem --model NAME \\
        --vllm-server-url http://node1:8000/v1,http://node2:8000/v1 --input-batch-size 512 --output data/traces

The same command continues a run that was interrupted; no row is generated twice. The folder loads with
`datasets.load_dataset`, trains with `open-r1 sft` and `open-r1 grpo`, and `open-r1 data verify` keeps what is right.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from open_r1.engine.options import EngineOptions
from open_r1.errors import UserError
from open_r1.generation.options import GenerateOptions, SamplingOptions, output_folder
from open_r1.options import parse_options
from open_r1.run.entry import exit_with_sentence, quiet_libraries

if TYPE_CHECKING:
    from open_r1.generation.problems import Problems


def main(argv: list[str] | None = None) -> None:
    """Generates as `argv` says (default: the command line). Raises UserError for what the user can mend."""
    options, engine = read_options(sys.argv[1:] if argv is None else argv)
    if options.hf_output_dataset and options.part != (0, 1):
        raise UserError("hf_output_dataset is for whole datasets: `open-r1 data merge` the parts, then `data push`.")
    if not options.hf_output_dataset:
        return generate(options, engine)
    from open_r1.report.hub import create_dataset_repo, push_dataset

    create_dataset_repo(options.hf_output_dataset, options.private)
    generate(options, engine)
    print(f"{push_dataset(options.output, options.hf_output_dataset)}")
    return None


def read_options(argv: Sequence[str]) -> tuple[GenerateOptions, EngineOptions]:
    """The options of `open-r1 generate`: those of huggingface/open-r1, and the engine's. Raises `UserError`."""
    options, engine = parse_options(
        argv, GenerateOptions, EngineOptions, prog="open-r1 generate", description=__doc__ or ""
    )
    return options, options.with_concurrency(engine)


def generate(options: GenerateOptions, engine_options: EngineOptions) -> None:
    """One run in `options.output`, begun or continued."""
    from rich.console import Console

    from open_r1.engine.choose import open_engine
    from open_r1.engine.protocol import Sampling
    from open_r1.generation.run import Generation
    from open_r1.generation.store import ShardStore
    from open_r1.generation.summary import begin, finish, summary_table

    quiet_libraries()
    console = Console()
    sampling = Sampling(
        n=options.num_generations,
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.max_new_tokens,
        seed=options.seed,
    )
    problems = read_problems(options.hf_dataset, options)
    digest, longest = problems.digest()
    engine = open_engine(engine_options)
    settings = {
        "model": None if engine.identity.get("weights") else engine_options.model,
        "revision": engine_options.revision,
        "weights": engine.identity.get("weights"),
        "dtype": engine_options.dtype,
        "prompt_column": options.prompt_column,
        "prompt_template": options.prompt_template,
        "system_prompt": options.system_prompt,
        "answer_column": options.answer_column,
        "data": digest,
        "num_generations": sampling.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "shard": "/".join(map(str, options.part)),
    }
    folder = output_folder(options.output, options.part)
    store = ShardStore(folder, settings, len(problems), sampling.n)
    begin(folder, engine_options.model, [options.hf_dataset])
    run = Generation(
        problems,
        range(options.part[0], len(problems), options.part[1]),
        engine,
        sampling,
        store,
        rows_per_shard=options.rows_per_shard,
        skip_long=options.skip_long_prompts,
    )
    run.run(longest, console)
    engine.engine.close()
    console.print(summary_table(finish(folder, len(run.too_long))))
    console.print(f"The rows are in {folder}.", soft_wrap=True, highlight=False)


def read_problems(dataset: str, options: SamplingOptions) -> "Problems":
    """The dataset as prompts."""
    from open_r1.data.load import load_split
    from open_r1.generation.problems import Problems

    return Problems(
        load_split(dataset, config=options.hf_dataset_config, split=options.hf_dataset_split),
        options.prompt_column,
        template=options.prompt_template,
        system_prompt=options.system_prompt,
        answer_column=options.answer_column,
    )


if __name__ == "__main__":
    exit_with_sentence(main)
