"""What `run.sh` came to: pass@1 by the number of steps before and after GRPO, and the cheats that appeared.

    python examples/programs/results.py runs/programs

Writes `results.md` there. Intervals cover 95%, over tasks; the difference is paired. A cheat is a program that prints
the example's output or reads no input, or that catches every exception. GRPO's are counted in the rollouts of its run.
"""

import argparse
import json
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from open_r1.errors import UserError
from open_r1.rewards.code.programs import extract_code
from open_r1.run.entry import exit_with_sentence

CHEATS = ("prints the example", "reads no input", "catches every exception")


def cheat(completion: str, prompt: str) -> str | None:
    """The kind of a cheat, by what the program says; None if it says nothing of the sort."""
    source = extract_code(completion)
    shown = re.split(r"Example output:\n", prompt)[-1].partition("<|im_end|>")[0].strip()
    if source and "input" not in source and "stdin" not in source:
        return CHEATS[0] if shown and shown in source else CHEATS[1]
    return CHEATS[2] if re.search(r"except\s*(Exception)?\s*:", source) else None


def score_table(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each number of steps, and one for all."""
    lines = ["| steps | tasks | before, % | after, % | points |", "|---|--:|--:|--:|--:|"]
    kinds = sorted({row["steps"] for row in before})
    for name, chosen in [*((str(kind), {kind}) for kind in kinds), ("all", set(kinds))]:
        old, new = (_shares(row for row in rows if row["steps"] in chosen) for rows in (before, after))
        if old.keys() != new.keys():
            raise UserError("before.jsonl and after.jsonl are not of the same tasks: delete the older one.")
        points = [new[prompt] - old[prompt] for prompt in old]
        cells = [_percent(list(old.values())), _percent(list(new.values())), _percent(points, "+")]
        lines.append(f"| {name} | {len(old)} | {' | '.join(cells)} |")
    return lines


def cheat_table(phases: dict[str, Sequence[dict[str, Any]]]) -> list[str]:
    """A line for each phase and kind: how many of its programs, and how many of those were right."""
    lines = ["| completions | number | cheat | share | of them right |", "|---|--:|---|--:|--:|"]
    for name, rows in phases.items():
        found = [(cheat(row["completion"], row["prompt"]), row["reward"]) for row in rows]
        kinds = Counter(kind for kind, _ in found if kind)
        for kind in sorted(kinds) or ["none"]:
            right = sum(1 for other, reward in found if other == kind and reward == 1.0)
            lines.append(f"| {name} | {len(rows)} | {kind} | {kinds[kind] / len(rows):.2%} | {right} |")
    return lines


def rollouts(run: Path) -> dict[str, Sequence[dict[str, Any]]]:
    """The completions of GRPO's first and last quarter."""
    files = sorted(run.glob("run/rollouts/*.parquet"))
    quarter = math.ceil(len(files) / 4)
    phases = {f"GRPO, first {quarter} steps": files[:quarter], f"GRPO, last {quarter} steps": files[-quarter:]}
    return {name: [row for file in part for row in _completions(file)] for name, part in phases.items() if files}


def _completions(file: Path) -> list[dict[str, Any]]:
    names = {"prompt": "prompt", "completion": "completion", "reward/binary_code": "reward"}
    return pq.read_table(file, columns=list(names)).rename_columns(list(names.values())).to_pylist()


def _shares(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The share of right programs of each task."""
    rewards = defaultdict(list)
    for row in rows:
        rewards[row["prompt"]].append(float(row["reward"]))
    return {prompt: statistics.fmean(values) for prompt, values in rewards.items()}


def _percent(values: Sequence[float], sign: str = "") -> str:
    mean = f"{statistics.fmean(values) * 100:{sign}.1f}"
    return f"{mean} ± {196 * statistics.stdev(values) / math.sqrt(len(values)):.1f}" if len(values) > 1 else mean


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path} is missing: give the folder that examples/programs/run.sh wrote (OUT).")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Prints the tables and writes them to `results.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    before, after = _read(args.folder / "before.jsonl"), _read(args.folder / "after.jsonl")
    phases = {"held out, before": before, **rollouts(args.folder / "grpo"), "held out, after": after}
    text = "\n".join([*score_table(before, after), "", *cheat_table(phases), ""])
    (args.folder / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    exit_with_sentence(main)
