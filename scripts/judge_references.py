"""Judges the reference solutions of HumanEval or MBPP as if a model had written them: all must be right.

python scripts/judge_references.py humaneval
python scripts/judge_references.py mbpp_plus --data-dir data
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from open_r1.evaluation.code.functions import SOURCES
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.run.entry import exit_with_sentence


def main(argv: Sequence[str] | None = None) -> None:
    """Prints those that are not right, and how many are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=SOURCES)
    parser.add_argument("--data-dir", type=Path, help="folder with <task>.jsonl; default: the hub")
    options = parser.parse_args(argv)
    problems = load_problems(find_task(options.task), options.data_dir)
    judge = problems[0].judge
    assert judge is not None
    verdicts = judge([(problem, f"```python\n{problem.tests.reference}\n```") for problem in problems])
    for problem, verdict in zip(problems, verdicts, strict=True):
        if verdict.correct is not True:
            print(f"{problem.id}: {verdict.reason}")
    print(f"{sum(verdict.correct is True for verdict in verdicts)} of {len(problems)} reference solutions are right")


if __name__ == "__main__":
    exit_with_sentence(main)
