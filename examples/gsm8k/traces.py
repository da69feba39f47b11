"""Worked solutions of GSM8K as traces for SFT: the solution as reasoning, the number behind it as answer.

    python examples/gsm8k/traces.py openai/gsm8k --config main --output traces.jsonl
    python examples/gsm8k/traces.py gsm8k_train.jsonl.gz --output traces.jsonl --problem problem --solution solution

    python examples/gsm8k/traces.py openai/gsm8k --config main --output traces.jsonl --held-out 1000

The last one also writes `held_out.jsonl` beside the traces: the last 1,000 rows, which are left out of them. They are
what settings are chosen by, so that the test set is not.

Calculator marks (`<<48/2=24>>`) are left out. The recipes' system prompt is not part of a trace: SFT puts it there.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from open_r1.data.load import load_split, require_columns
from open_r1.run.entry import exit_with_sentence


def trace(problem: str, solution: str) -> list[dict[str, str]]:
    """The conversation that a model learns: reasoning in a think block, the number in an answer block."""
    reasoning, _, answer = solution.rpartition("####")
    text = f"<think>\n{without_marks(reasoning).strip()}\n</think>\n<answer>\n{answer.strip()}\n</answer>"
    return [{"role": "user", "content": problem}, {"role": "assistant", "content": text}]


def without_marks(solution: str) -> str:
    """The solution without calculator marks."""
    return re.sub(r"<<.*?>>", "", solution)


def main() -> None:
    """Writes one line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="hub id, folder or file")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--config")
    parser.add_argument("--split", default="train")
    parser.add_argument("--problem", default="question", help="column with the problem")
    parser.add_argument("--solution", default="answer", help="column with the worked solution, #### and a number last")
    parser.add_argument("--held-out", type=int, default=0, metavar="N", help="keep the last N rows apart")
    args = parser.parse_args()
    rows = load_split(args.dataset, config=args.config, split=args.split)
    require_columns(rows, args.problem, args.solution)
    learned = len(rows) - args.held_out
    write(
        args.output, [{"messages": trace(row[args.problem], row[args.solution])} for row in rows.select(range(learned))]
    )
    if args.held_out:
        apart = [
            {"problem": row[args.problem], "answer": row[args.solution]}
            for row in rows.select(range(learned, len(rows)))
        ]
        write(args.output.with_name("held_out.jsonl"), apart)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes the rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows in {path}")


if __name__ == "__main__":
    exit_with_sentence(main)
