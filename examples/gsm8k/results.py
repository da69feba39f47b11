"""What a run of `run.sh` came to: a table of its evaluations, paired differences, and curves of its GRPO stages.

    python examples/gsm8k/results.py runs/gsm8k

Writes `results.md` and `curves.svg` beside the stages. Stages that are not there yet are left out.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.compare import compare
from open_r1.evaluation.metrics import in_percent
from open_r1.evaluation.store import finished_folders
from open_r1.report.recorder import read_metrics
from open_r1.run.entry import exit_with_sentence

sys.path.append(str(Path(__file__).parents[1]))
from curves import metric_curves

MODELS = ("base", "sft", "grpo", "zero")
PROTOCOLS = ("greedy", "deepseek")
PAIRS = (("base", "sft"), ("sft", "grpo"), ("base", "zero"))
PHASES = ("generation", "scoring", "training", "weight_update")
CURVES = (
    ("reward", "Reward", False),
    ("rewards/accuracy/mean", "Accuracy reward", False),
    ("completions/mean_length", "Length of a completion, in tokens", False),
    ("entropy", "Entropy, in nats a token", False),
    ("frac_reward_zero_std", "Groups without signal", True),
    ("completions/clipped_ratio", "Completions that were cut off", True),
)
"""Metric, title, and whether it is a share of 1."""

Figures = Mapping[str, Mapping[str, Any]]


def load_evaluations(run: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """`results.json` of each model by protocol, of those that have both. Raises `UserError` if none has."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for model in MODELS:
        folders = {protocol: run / "evaluation" / model / protocol for protocol in PROTOCOLS}
        if all(any(folder.glob("*/results.json")) for folder in folders.values()):
            paths = {protocol: finished_folders(folder)[0] / "results.json" for protocol, folder in folders.items()}
            found[model] = {protocol: json.loads(path.read_text("utf-8")) for protocol, path in paths.items()}
    if not found:
        raise UserError(f"{run} has no finished evaluation: give the folder that examples/gsm8k/run.sh wrote (OUT).")
    return found


def score_table(evaluations: Mapping[str, Figures], samples: int) -> list[str]:
    """A line a model. Length and the share that was cut off are of the samples."""
    lines = [
        f"| model | greedy, % [95%] | pass@1 of {samples} samples, % [95%] | pass@{samples}, % [95%] | tokens | "
        "cut off | no answer |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for model, by_protocol in evaluations.items():
        sampled = by_protocol["deepseek"]
        most = sampled["pass@k"][str(sampled["num_samples"])]
        cells = [
            in_percent(by_protocol["greedy"]["pass@1"], by_protocol["greedy"]["ci95"]),
            in_percent(sampled["pass@1"], sampled["ci95"]),
            in_percent(most["value"], most["ci95"]),
            f"{sampled['mean_tokens']:,.0f}",
            f"{sampled['truncated']:.1%}",
            f"{sampled['no_answer']:.1%}",
        ]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def difference_table(run: Path, models: Mapping[str, Any], samples: int) -> list[str]:
    """Paired differences of pass@1, in points."""
    lines = ["| difference | protocol | points [95%, paired] | times |", "|---|---|--:|--:|"]
    names = dict(zip(PROTOCOLS, ("greedy", f"pass@1 of {samples} samples"), strict=True))
    for a, b in PAIRS:
        for protocol, name in names.items() if a in models and b in models else ():
            [found] = compare(run / "evaluation" / a / protocol, run / "evaluation" / b / protocol)
            points = in_percent(found.difference.value, found.difference.ci95, signed=True)
            lines.append(f"| {b} - {a} | {name} | {points} | {f'{found.b / found.a:.2f}' if found.a else '-'} |")
    return lines


def time_table(metrics: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Median seconds of a step's phases, and the minutes of all steps."""
    lines = ["| stage | steps | generation | scoring | training | weight update | all steps |", "|---|" + "--:|" * 6]
    for stage, steps in metrics.items():
        seconds = {phase: [step.get(f"time/{phase}", 0.0) for step in steps] for phase in PHASES}
        medians = " | ".join(f"{statistics.median(seconds[phase]):.2f} s" for phase in PHASES)
        lines.append(f"| {stage} | {len(steps)} | {medians} | {sum(map(sum, seconds.values())) / 60:.1f} min |")
    return lines


def main() -> None:
    """Writes and prints the tables, and writes the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="DIR", help="what run.sh wrote")
    run = parser.parse_args().run
    evaluations = load_evaluations(run)
    metrics = {stage: read_metrics(run / stage / "run") for stage in ("grpo", "zero") if (run / stage / "run").exists()}
    metrics = {stage: steps for stage, steps in metrics.items() if steps}
    samples = max(by_protocol["deepseek"]["num_samples"] for by_protocol in evaluations.values())
    parts = [score_table(evaluations, samples), difference_table(run, evaluations, samples)]
    if metrics:
        parts.append(time_table(metrics))
        (run / "curves.svg").write_text(metric_curves(metrics, CURVES), encoding="utf-8")
    text = "\n\n".join("\n".join(part) for part in parts if len(part) > 2) + "\n"
    (run / "results.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"Written: {run / 'results.md'}{f' and {run}/curves.svg' if metrics else ''}")


if __name__ == "__main__":
    exit_with_sentence(main)
