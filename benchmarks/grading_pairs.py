"""Counts how often graders decide labelled pairs as labelled.

    python benchmarks/grading_pairs.py PAIRS.jsonl [--graders ours math-verify mathruler] [--show]

A line of PAIRS.jsonl is `{"answer", "gold", "right", "completion", "contested"}`: an answer and the verdict that it
deserves against the gold. `completion` is true where `answer` is a whole completion; other answers are boxed.
`contested` is true where reasonable people differ. `mathruler` needs `pip install mathruler sympy pylatexenc tqdm`.
"""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

logging.disable(logging.WARNING)
Verdicts = Callable[[list[str], list[str]], list[bool | None]]


def ours(completions: list[str], golds: list[str]) -> list[bool | None]:
    """The grader of this project."""
    from open_r1.rewards.grader import Grader

    grader = Grader(seconds=30)
    verdicts = grader.grade_many(completions=completions, golds=golds)
    grader.close()
    return [verdict.correct for verdict in verdicts]


def math_verify(completions: list[str], golds: list[str]) -> list[bool | None]:
    """math-verify with its default parsing; None for a gold that it cannot read."""
    from math_verify import parse, verify

    parsed = [(parse(f"${gold}$"), parse(completion)) for completion, gold in zip(completions, golds, strict=True)]
    return [bool(verify(gold, answer)) if gold else None for gold, answer in parsed]


def mathruler(completions: list[str], golds: list[str]) -> list[bool | None]:
    """MathRuler: its own extraction, then its comparison."""
    from mathruler.grader import extract_boxed_content, grade_answer

    return [
        bool(grade_answer(extract_boxed_content(completion), gold))
        for completion, gold in zip(completions, golds, strict=True)
    ]


GRADERS: dict[str, Verdicts] = {"ours": ours, "math-verify": math_verify, "mathruler": mathruler}


def main() -> None:
    """Prints one line a grader; `--show` lists the pairs that it does not decide as labelled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--graders", nargs="+", choices=GRADERS, default=["ours", "math-verify"])
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.pairs.read_text().splitlines()]
    completions = [row["answer"] if row["completion"] else f"$\\boxed{{{row['answer']}}}$" for row in rows]
    golds = [row["gold"] for row in rows]
    settled = [row for row in rows if not row["contested"]]
    print(
        f"| grader | of {len(settled)} uncontested, as labeled | of all {len(rows)} wrongly accepted | wrongly "
        "rejected |"
    )
    print("| --- | --: | --: | --: |")
    for name in arguments.graders:
        verdicts = GRADERS[name](completions, golds)
        pairs = list(zip(rows, verdicts, strict=True))
        decided = sum(verdict is row["right"] for row, verdict in pairs if not row["contested"])
        too_kind = sum(verdict is True and not row["right"] for row, verdict in pairs)
        too_hard = sum(verdict is not True and row["right"] for row, verdict in pairs if not row["contested"])
        print(f"| {name} | {decided} | {too_kind} | {too_hard} |")
        if arguments.show:
            for number, (row, verdict) in enumerate(pairs, 1):
                if verdict is not row["right"] and (not row["contested"] or verdict):
                    print(number, verdict, "contested" if row["contested"] else "", [row["answer"], row["gold"]])


if __name__ == "__main__":
    main()
