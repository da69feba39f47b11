"""What runs of `run.sh` came to: a table, curves of every run, and completions before and after.

    python examples/zero/results.py runs/zero

Writes `results.md`, `curves.svg` and `completions.md` into that folder. Runs that are not finished are left out.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.compare import compare_folders
from open_r1.evaluation.metrics import in_percent
from open_r1.evaluation.store import read_results, read_samples
from open_r1.report.recorder import read_metrics
from open_r1.run.entry import exit_with_sentence

sys.path.append(str(Path(__file__).parents[1]))
from curves import metric_curves

TASK = "held_out"
CURVES = (
    ("reward", "Right answers of a step", True),
    ("completions/mean_length", "Length of a completion, in tokens", False),
    ("entropy", "Entropy, in nats per token", False),
    ("frac_reward_zero_std", "Groups without signal", True),
)
"""Metric, title, and whether it is a share of 1."""
SHOWN_PER_LEVEL = 2


@dataclass(frozen=True)
class ZeroRun:
    """A finished run: the evaluations before and after on the same problems, and the metrics between."""

    task: str
    seed: str
    base: Path
    trained: Path
    metrics: list[dict[str, Any]]
    minutes: float
    """From the start of the training command to its end, all sittings together."""

    @property
    def name(self) -> str:
        """Such as `sums, seed 1`."""
        return f"{self.task}, {self.seed.replace('-', ' ')}"


def finished_runs(root: Path) -> list[ZeroRun]:
    """Runs below `root` that have both evaluations. Raises `UserError` if there is none."""
    runs = []
    for trained in sorted(root.glob(f"*/seed-*/evaluation/{TASK}")):
        run = trained.parents[1]
        base = run.parent / "base" / TASK
        if all((folder / "results.json").is_file() for folder in (base, trained)):
            metrics = [line for line in read_metrics(run / "run") if "reward" in line]
            seconds = sum(map(int, (run / "seconds.txt").read_text("utf-8").split()))
            runs.append(ZeroRun(run.parent.name, run.name, base, trained, metrics, seconds / 60))
    if not runs:
        raise UserError(f"{root} has no finished run: give the folder that examples/zero/run.sh wrote (OUT).")
    return runs


def score_table(runs: list[ZeroRun]) -> list[str]:
    """A line per run: pass@1 on the held-out problems before and after, and the paired difference in points."""
    lines = [
        "| run | base, % [95%] | trained, % [95%] | points [95%, paired] | tokens | steps | minutes |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for run in runs:
        base, trained = read_results(run.base), read_results(run.trained)
        difference = compare_folders(TASK, run.base, run.trained).difference
        cells = [
            in_percent(base["pass@1"], base["ci95"]),
            in_percent(trained["pass@1"], trained["ci95"]),
            in_percent(difference.value, difference.ci95, signed=True),
            f"{base['mean_tokens']:,.0f} to {trained['mean_tokens']:,.0f}",
            f"{len(run.metrics)}",
            f"{run.minutes:.1f}",
        ]
        lines.append(f"| {run.name} | {' | '.join(cells)} |")
    return lines


def level_table(runs: list[ZeroRun]) -> list[str]:
    """pass@1 of each level, before and after, in percent."""
    levels = sorted({level for run in runs for level in _by_level(run.trained)})
    lines = [f"| run | {' | '.join(f'level {level}' for level in levels)} |", "|---|" + "--:|" * len(levels)]
    for run in runs:
        base, trained = _by_level(run.base), _by_level(run.trained)
        cells = [f"{base[x]:.0f} to {trained[x]:.0f}" if x in base and x in trained else "-" for x in levels]
        lines.append(f"| {run.name} | {' | '.join(cells)} |")
    return lines


def completions(runs: list[ZeroRun]) -> list[str]:
    """The first sample of the first problems of each level, before and after, not chosen by what they say."""
    lines = []
    for run in runs:
        lines.append(f"## {run.name}\n")
        levels = len(_by_level(run.trained)) or 1  # held-out problems go round the levels
        samples = [
            {row["index"]: row for row in read_samples(f) if row["sample"] == 0} for f in (run.base, run.trained)
        ]
        for index in sorted(samples[0])[: levels * SHOWN_PER_LEVEL]:
            lines.append(f"**{samples[0][index]['problem']}** (gold: {samples[0][index]['gold']})\n")
            for name, rows in zip(("Base", "Trained"), samples, strict=True):
                row = rows[index]
                verdict = "right" if row["correct"] else "wrong"
                quoted = row["completion"].replace("```", "'''").strip()
                lines.append(f"{name}, {verdict}, {row['n_tokens']} tokens:\n\n```\n{quoted}\n```\n")
    return lines


def _by_level(folder: Path) -> dict[str, float]:
    figures = read_results(folder).get("by", {}).get("level", {})
    return {level: figure["pass@1"] * 100 for level, figure in figures.items()}


def main() -> None:
    """Writes the files, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="DIR", help="what run.sh wrote")
    root = parser.parse_args().root
    runs = finished_runs(root)
    text = "\n".join([*score_table(runs), "", *level_table(runs)]) + "\n"
    (root / "results.md").write_text(text, encoding="utf-8")
    (root / "curves.svg").write_text(metric_curves({run.name: run.metrics for run in runs}, CURVES), encoding="utf-8")
    (root / "completions.md").write_text("\n".join(completions(runs)), encoding="utf-8")
    print(text)
    print(f"Wrote results.md, curves.svg and completions.md in {root}")


if __name__ == "__main__":
    exit_with_sentence(main)
