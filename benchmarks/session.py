"""What a benchmark of several cases does in one call: each case in processes of its own, within a time budget. Results
are appended to a file as they come; the same command measures what is missing."""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHOWN_LINES = 25
"""Of the log of a case that fails."""


def end_of_log(log: Path) -> str:
    """The last lines of a log, without torchrun's report, which says nothing about the reason."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    ours = list(itertools.takewhile(lambda line: "torch/distributed/elastic" not in line, lines))
    return "\n".join(ours[-SHOWN_LINES:])


def add_options(parser: argparse.ArgumentParser, case_timeout: float) -> None:
    """The options of every session."""
    parser.add_argument("--time_budget", type=float, default=500, help="seconds; the same command then goes on")
    parser.add_argument("--case_timeout", type=float, default=case_timeout, help="seconds for one case")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--table", action="store_true", help="show what --results has, and measure nothing")
    parser.add_argument("--logs", type=Path, help="folder for a log of each case (default: beside --results, or /tmp)")


def choose_logs(args: argparse.Namespace) -> None:
    """Sets the folder of the logs, if none is given, and prints it."""
    if args.logs is None:
        args.logs = args.results.with_suffix(".logs") if args.results else Path(tempfile.mkdtemp(prefix="benchmark-"))
    print(f"Logs of the cases: {args.logs}", flush=True)


def key(case: dict[str, Any], settings: dict[str, Any]) -> str:
    """What tells results apart."""
    return json.dumps([case, settings], sort_keys=True)


class Session:
    """Results that are there (`args.results`), and those that this call measures. `settings` are options that a result
    depends on, besides its case. Subclasses say how a case is run and shown."""

    first_seconds = 20.0
    """What a case is expected to take before one has been measured."""

    def __init__(self, args: argparse.Namespace, settings: Iterable[str]) -> None:
        self.args = args
        self.deadline = time.monotonic() + args.time_budget
        self.settings = {name: getattr(args, name) for name in settings}
        lines = args.results.read_text().splitlines() if args.results and args.results.exists() else []
        results = [json.loads(line) for line in lines]
        self.found = {key(result["case"], result["settings"]): result for result in results}
        self.left_out: list[str] = []
        self.spent: list[float] = []

    def name(self, case: dict[str, Any]) -> str:
        """A case in words."""
        raise NotImplementedError

    def launch(self, case: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The result of a case: with `error` if it failed, `cut` if it did not end within `timeout`, and then `log`."""
        raise NotImplementedError

    def head(self, case: dict[str, Any]) -> str:
        """The head of the table that a case belongs to."""
        raise NotImplementedError

    def cells(self, case: dict[str, Any], result: dict[str, Any]) -> list[str]:
        """The case's row of the table, without the reason why it failed."""
        raise NotImplementedError

    def get(self, case: dict[str, Any]) -> dict[str, Any]:
        """The result of a case, empty if there is none."""
        return self.found.get(key(case, self.settings), {})

    def run(self, cases: Iterable[dict[str, Any]]) -> None:
        """Measures and shows every case."""
        head = ""
        for case in cases:
            result = self.get(case) or self.measure(case)
            if not result:
                continue
            if self.head(case) != head:
                head = self.head(case)
                print(f"\n{head}", flush=True)
            reason = str(result.get("error") or result.get("cut") or "").strip() or " "
            print(f"| {' | '.join(self.cells(case, result))} | {reason.splitlines()[0][:100]} |", flush=True)
            if result.get("log") and not self.args.table:
                print(f"\nThe last lines of its log:\n{result['log']}\n", file=sys.stderr, flush=True)
        if self.left_out and not self.args.table:
            print("\nThe time is too short for these, which the same command measures:")
            print("\n".join(f"  {case}" for case in self.left_out))

    def measure(self, case: dict[str, Any]) -> dict[str, Any]:
        """The result of a case, which is appended to the file; empty if the time is too short for it."""
        left = self.deadline - time.monotonic()
        usual = statistics.median(self.spent) if self.spent else self.first_seconds
        if self.args.table or left < usual:
            self.left_out.append(self.name(case))
            return {}
        began, limit = time.monotonic(), self.args.case_timeout
        result = self.launch(case, min(left, limit))
        self.spent.append(time.monotonic() - began)
        if left < limit and result.get("cut"):
            self.left_out.append(self.name(case))
            return {}
        return self.store(case, result | {"spent": round(self.spent[-1], 1)})

    def store(self, case: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        """Keeps a result, and appends it to the file."""
        result |= {"case": case, "settings": self.settings}
        self.found[key(case, self.settings)] = result
        if self.args.results is not None:
            self.args.results.parent.mkdir(parents=True, exist_ok=True)
            with self.args.results.open("a") as file:
                file.write(json.dumps(result, default=str) + "\n")
        return result
