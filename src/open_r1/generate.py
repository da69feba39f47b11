"""Generates reasoning traces: graded completions for every problem of a dataset, in shards that survive a kill.

    open-r1 generate --hf-dataset AI-MO/NuminaMath-TIR --prompt-column problem --num-generations 4 \\
        --model deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --max-new-tokens 8192 --output data/numina-r1-7b
    open-r1 generate --hf-dataset problems.jsonl --prompt-column problem --model NAME \\
        --vllm-server-url http://node1:8000/v1,http://node2:8000/v1 --input-batch-size 512 --output data/traces

Run the same command again to continue an interrupted run; no row is generated twice. `datasets.load_dataset`,
`open-r1 sft` and `open-r1 grpo` read the folder, and `open-r1 data verify` keeps the right answers.
"""

from collections.abc import Sequence

from open_r1.engine.options import EngineOptions
from open_r1.errors import UserError
from open_r1.generation.generate import generate
from open_r1.generation.options import GenerateOptions
from open_r1.options import parse_options
from open_r1.run.entry import exit_with_sentence


def main(argv: list[str] | None = None) -> None:
    """Generates with the options in `argv` (default: the command line). Raises `UserError`."""
    options, engine = read_options(argv)
    if options.hf_output_dataset and options.part != (0, 1):
        raise UserError(
            "hf_output_dataset is for whole datasets: merge the parts with `open-r1 data merge`, then upload them "
            "with `open-r1 data push`."
        )
    if not options.hf_output_dataset:
        return generate(options, engine)
    from open_r1.report.hub import create_dataset_repo, push_dataset

    create_dataset_repo(options.hf_output_dataset, options.private)
    generate(options, engine)
    print(f"{push_dataset(options.output, options.hf_output_dataset)}")
    return None


def read_options(argv: Sequence[str] | None) -> tuple[GenerateOptions, EngineOptions]:
    """The options of `open-r1 generate`: those of huggingface/open-r1, and the engine's. Raises `UserError`."""
    options, engine = parse_options(argv, GenerateOptions, EngineOptions, prog="open-r1 generate", description=__doc__)
    return options, options.with_concurrency(engine)


if __name__ == "__main__":
    exit_with_sentence(main)
