#!/usr/bin/env python3
"""Has lighteval judge the completions that `open-r1 evaluate` saved, and shows where the two verdicts differ.

    PYTHONPATH=src .venv-lighteval/bin/python scripts/compare_lighteval.py runs/evaluation/math_500

To be run in lighteval's environment (docs/evaluation.md says how to make it). The folder is that of a finished task.
"""

import argparse
import logging
from pathlib import Path

from lighteval.metrics.metrics import Metrics
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc

from open_r1.evaluation.lighteval_tasks import as_latex
from open_r1.evaluation.store import read_samples
from open_r1.run.entry import exit_with_sentence

COLUMNS = ["id", "gold", "sample", "completion", "extracted", "correct", "reason"]


def main() -> None:
    """Prints a table of both verdicts, and each sample on which they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR/TASK", help="with samples.parquet")
    folder = parser.parse_args().folder
    logging.getLogger("lighteval").setLevel(logging.ERROR)
    rows = read_samples(folder, COLUMNS)
    score = Metrics.pass_at_k_math(sample_params={"k": 1, "n": 1}).sample_level_fn
    counts = dict.fromkeys([(ours, theirs) for ours in (True, False) for theirs in (True, False)], 0)
    differing = []
    for row in rows:
        doc = Doc(query="", choices=[as_latex(row["gold"])], gold_index=0)
        theirs = score.compute(doc=doc, model_response=ModelResponse(text=[row["completion"]])) == 1
        ours = row["correct"] is True
        counts[ours, theirs] += 1
        if ours != theirs:
            differing.append((row, ours))
    print(f"{len(rows)} samples of {folder}")
    print("                        lighteval: right   wrong")
    for ours in (True, False):
        print(f"open-r1 {'right' if ours else 'wrong'} {counts[ours, True]:>23,} {counts[ours, False]:>7,}")
    print(f"They agree on {1 - len(differing) / len(rows):.1%}.")
    for row, ours in differing:
        verdict = "right" if ours else "wrong"
        print(f"\n{row['id']}, sample {row['sample']}: open-r1 {verdict} ({row['reason']})")
        print(f"  gold      {row['gold']}\n  extracted {row['extracted']}")
        print(f"  ends with {' '.join(row['completion'].split())[-160:]}")


if __name__ == "__main__":
    exit_with_sentence(main)
