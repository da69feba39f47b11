"""Worked solutions of GSM8K as traces for SFT: the solution as reasoning, the number behind it as answer.

    python examples/gsm8k/traces.py openai/gsm8k --config main --output traces.jsonl
    python examples/gsm8k/traces.py gsm8k_train.jsonl.gz --output traces.jsonl --problem problem --solution solution

Calculator marks (`<<48/2=24>>`) are left out. The recipes' system prompt is not part of a trace: SFT puts it there.
"""

import argparse
import json
import re
from pathlib import Path

from open_r1.data.load import load_split, require_columns
from open_r1.run.entry import exit_with_sentence


def trace(problem: str, solution: str) -> list[dict[str, str]]:
    """The conversation that a model learns: reasoning in a think block, the number in an answer block."""
    reasoning, _, answer = solution.rpartition("####")
    reasoning = re.sub(r"<<.*?>>", "", reasoning).strip()
    text = f"<think>\n{reasoning}\n</think>\n<answer>\n{answer.strip()}\n</answer>"
    return [{"role": "user", "content": problem}, {"role": "assistant", "content": text}]


def main() -> None:
    """Writes one line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="hub id, folder or file")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--config")
    parser.add_argument("--split", default="train")
    parser.add_argument("--problem", default="question", help="column with the problem")
    parser.add_argument("--solution", default="answer", help="column with the worked solution, #### and a number last")
    args = parser.parse_args()
    rows = load_split(args.dataset, config=args.config, split=args.split)
    require_columns(rows, args.problem, args.solution)
    lines = [json.dumps({"messages": trace(row[args.problem], row[args.solution])}, ensure_ascii=False) for row in rows]
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(rows)} traces in {args.output}")


if __name__ == "__main__":
    exit_with_sentence(main)
