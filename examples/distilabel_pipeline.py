"""Reasoning traces through distilabel, from any vLLM (or other OpenAI-compatible) server.

    pip install -e ".[distilabel]"            (or `make test-distilabel`, which makes an environment of its own)
    vllm serve deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --max-model-len 10240
    python examples/distilabel_pipeline.py --dataset AI-MO/NuminaMath-TIR --output data/numina-distilabel \\
        --model deepseek-ai/DeepSeek-R1-Distill-Qwen-7B
    open-r1 data verify data/numina-distilabel --completion-column generation --output data/verified

`open-r1 generate` does the same and survives kills; this is for those who build on distilabel's steps.
"""

import argparse
from pathlib import Path

from datasets import Dataset, load_dataset
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps.tasks import TextGeneration

TEMPLATE = """\
You will be given a problem. Reason step by step, and put your final answer within \\boxed{}:
{{ instruction }}"""
FILES = {".jsonl": "json", ".gz": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def main() -> None:
    """Generates, and writes one row per problem, with a list of generations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="hub id or file")
    parser.add_argument("--split", default="train", help="slices such as train[:10] work")
    parser.add_argument("--prompt-column", default="problem")
    parser.add_argument("--model", required=True, help="as the server names it")
    parser.add_argument("--vllm-server-url", default="http://localhost:8000/v1")
    parser.add_argument("--num-generations", type=int, default=4)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--max-new-tokens", type=int, default=8192)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()

    with Pipeline(name="open-r1-traces") as pipeline:
        TextGeneration(
            llm=OpenAILLM(
                base_url=args.vllm_server_url,
                api_key="not needed",
                model=args.model,
                timeout=3600,
                generation_kwargs={"temperature": args.temperature, "max_new_tokens": args.max_new_tokens},
            ),
            template=TEMPLATE,
            input_mappings={"instruction": args.prompt_column},
            num_generations=args.num_generations,
            group_generations=True,
        )
    distiset = pipeline.run(dataset=problems(args.dataset, args.split), use_cache=False)

    (args.output / "data").mkdir(parents=True, exist_ok=True)
    rows = distiset["default"]["train"]
    rows.to_parquet(args.output / "data" / "train-00000.parquet")
    print(f"{len(rows)} problems with {args.num_generations} generations each are in {args.output}.")


def problems(name: str, split: str) -> Dataset:
    """A split of a hub dataset or of a file."""
    path = Path(name)
    if path.is_file():
        return load_dataset(FILES[path.suffix], data_files=name, split=split)
    return load_dataset(name, split=split)


if __name__ == "__main__":
    main()
