"""The table of `run.sh`: what each setting came to, and whether it can be told apart from the baseline.

python examples/what_matters/table.py runs/what-matters
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1.errors import UserError
from open_r1.evaluation.metrics import Estimate, in_percent, paired_difference
from open_r1.run.entry import exit_with_sentence

BASELINE = "dapo"


@dataclass(frozen=True)
class Setting:
    """Rates of the same held-out problems, a list per seed, and the median number of optimizer steps."""

    name: str
    rates: Sequence[Sequence[float]]
    steps: float = 0.0

    @property
    def scores(self) -> list[float]:
        """pass@1 of each seed."""
        return [statistics.fmean(rates) for rates in self.rates]


@dataclass(frozen=True)
class Difference:
    """pass@1 of a setting minus the baseline's, both averaged over seeds, with the interval over problems."""

    estimate: Estimate
    told_apart: bool
    """The interval excludes 0, and every seed of the better one beats every seed of the other."""


def difference(baseline: Setting, setting: Setting) -> Difference:
    """Compares problem by problem, so that what makes a problem hard cancels out.

    The interval is over problems alone; two seeds say little about the noise of training, so the order of the seeds is
    asked too.
    """
    means = [[statistics.fmean(rates) for rates in zip(*s.rates, strict=True)] for s in (baseline, setting)]
    estimate = paired_difference(*means)
    low, high = estimate.ci95
    above = low > 0 and min(setting.scores) > max(baseline.scores)
    below = high < 0 and max(setting.scores) < min(baseline.scores)
    return Difference(estimate, above or below)


def load_settings(root: Path) -> list[Setting]:
    """The settings with finished runs, the baseline first. Raises `UserError` without a finished baseline."""
    found = []
    for folder in sorted(root.glob("*")):
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("seed-*/run.json"))]
        if runs:
            steps = statistics.median(run["steps"] for run in runs)
            found.append(Setting(folder.name, [run["rates"] for run in runs], steps))
    if BASELINE not in [setting.name for setting in found]:
        raise UserError(f"{root} has no finished run of {BASELINE}, with which all are compared: run run.sh first.")
    return sorted(found, key=lambda setting: setting.name != BASELINE)


def table(settings: Sequence[Setting]) -> list[str]:
    """A line per setting."""
    baseline = settings[0]
    lines = [
        f"| setting | pass@1 of each seed, % | steps | minus {baseline.name}, points [95%, paired] | told apart |",
        "|---|--:|--:|--:|---|",
    ]
    for setting in settings:
        scores = ", ".join(f"{score * 100:.1f}" for score in setting.scores)
        cells = "- | -"
        if setting is not baseline:
            found = difference(baseline, setting)
            points = in_percent(found.estimate.value, found.estimate.ci95, signed=True)
            cells = f"{points} | {'yes' if found.told_apart else 'no'}"
        lines.append(f"| {setting.name} | {scores} | {setting.steps:,.0f} | {cells} |")
    return lines


def main() -> None:
    """Prints the table, and writes it to `table.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="DIR", help="what run.sh wrote")
    root = parser.parse_args().root
    text = "\n".join(table(load_settings(root))) + "\n"
    (root / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    exit_with_sentence(main)
