"""What a speedrun came to: its row for the leaderboard, with the seconds of every stage.

    python examples/gsm8k/record.py runs/speedrun --seed 42 --note "fewer steps"

Reads `clock.txt`, and in `grpo` the evaluation and `environment.json`; prints the row and appends it to `log.md`.
"""

import argparse
import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.evaluation.metrics import in_percent
from open_r1.evaluation.store import finished_folders, read_results
from open_r1.run.entry import exit_with_sentence

HEADER = "| date | time | greedy, % [95%] | problems | seed | commit | stages, s | what changed |"
RULE = "|---|--:|--:|---|--:|---|---|---|"


def stage_seconds(lines: Iterable[str]) -> dict[str, int]:
    """Seconds of each stage, all sittings together. Raises `UserError` if a stage was killed, so that its time is not
    known, or if none was timed.

    A line is `begin STAGE EPOCH -` or `end STAGE EPOCH STATUS`.
    """
    seconds: dict[str, int] = {}
    running: tuple[str, int] | None = None
    for event, stage, epoch, _ in map(str.split, lines):
        if event == "begin":
            _check_ended(running)
            running = stage, int(epoch)
        elif running is not None:
            seconds[stage] = seconds.get(stage, 0) + int(epoch) - running[1]
            running = None
    _check_ended(running)
    if not seconds:
        raise UserError("clock.txt has no stage: run examples/gsm8k/speedrun.sh.")
    return seconds


def _check_ended(running: tuple[str, int] | None) -> None:
    if running is not None:
        raise UserError(f"clock.txt: stage {running[0]} was killed, so its time is not known: start in a new folder.")


def row(run: Path, seed: int, note: str, day: datetime.date) -> str:
    """The line of the leaderboard. Raises `UserError` for a run that is not finished."""
    seconds = stage_seconds((run / "clock.txt").read_text(encoding="utf-8").splitlines())
    results = read_results(finished_folders(run / "grpo" / "evaluation")[0])
    environment: dict[str, Any] = json.loads((run / "grpo" / "run" / "environment.json").read_text(encoding="utf-8"))
    total = sum(seconds.values())
    cells = [
        day.isoformat(),
        f"{total // 60}:{total % 60:02d}",
        in_percent(results["pass@1"], results["ci95"]),
        f"{results['n_problems']:,} of {results['task']}",
        str(seed),
        _short(environment.get("commit")),
        ", ".join(f"{stage} {spent}" for stage, spent in seconds.items()),
        note or "-",
    ]
    return f"| {' | '.join(cells)} |"


def _short(commit: str | None) -> str:
    """The first digits of a commit, with what says that files were changed after it."""
    digits, sign, changes = (commit or "-").partition("+")
    return digits[:7] + sign + changes


def main() -> None:
    """Prints the row, and appends it to the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="DIR", help="what speedrun.sh wrote")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--note", default="", help="what changed since the record before")
    args = parser.parse_args()
    line = row(args.run, args.seed, args.note, datetime.datetime.now(datetime.UTC).date())
    log = args.run / "log.md"
    if not log.exists():
        log.write_text(f"{HEADER}\n{RULE}\n", encoding="utf-8")
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    print(f"{HEADER}\n{RULE}\n{line}\n\nKept in {log}")


if __name__ == "__main__":
    exit_with_sentence(main)
