"""Do the tests see a wrong edit? Makes each edit of mutants.yaml in a copy of src, and runs the tests that should fail.

    make mutants                             # all of them, some twenty minutes on two cores
    make mutants ARGS='training/losses gspo'  # those whose name or file contains one of these words
    make mutants ARGS=--list

An edit is stale if its old text is not found exactly once: mend it, or take it out, with the code that it was about.
The status is 0 if every edit was killed, that is, if one of its tests failed.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
ROOT = Path(__file__).parents[1]
LIST = ROOT / "scripts/mutants.yaml"
PRELOADED = ("pytest", "datasets", "accelerate", "peft", "sympy", "transformers.trainer", "transformers.models.llama")
"""What takes seconds to import, and is imported once for all runs."""


@dataclass(frozen=True)
class Mutant:
    """An edit of `file` below src/open_r1, and arguments of pytest that choose the tests which should see it."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    def apply(self, source: Path) -> None:
        """Edits a copy of src."""
        path = source / "open_r1" / self.file
        path.write_text(path.read_text(encoding="utf-8").replace(self.old, self.new), encoding="utf-8")


def read_mutants() -> list[Mutant]:
    """All of the list. Raises ValueError for a name that is there twice."""
    mutants = [Mutant(**entry) for entry in yaml.safe_load(LIST.read_text(encoding="utf-8"))]
    names = [mutant.name for mutant in mutants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"names that are there twice: {', '.join(sorted(twice))}")
    return mutants


def stale(mutants: list[Mutant]) -> list[str]:
    """What is wrong with edits whose old text is not there exactly once."""
    found = []
    for mutant in mutants:
        path = ROOT / "src/open_r1" / mutant.file
        count = path.read_text(encoding="utf-8").count(mutant.old) if path.is_file() else None
        if count != 1:
            where = f"{count} times in {mutant.file}" if path.is_file() else f"in {mutant.file}, which is not there"
            found.append(f"{mutant.name}: the old text is {where}")
    return found


class Outcomes:
    """A plugin that counts what became of tests."""

    def __init__(self) -> None:
        self.passed, self.failed = 0, ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid
        elif report.when == "call" and report.passed:
            self.passed += 1


def run(tests: str, timeout: float, mutant: Mutant | None = None) -> tuple[str, str]:
    """Runs tests, in a forked process, on a copy of src with the edit of `mutant`: killed, survived, not run (all
    tests were skipped), broken (the tests did not even start) or endless; and the test that failed, or the output."""
    with tempfile.TemporaryDirectory(prefix="pytest-mutant-") as folder:
        source = Path(folder, "src")
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        if mutant is not None:
            mutant.apply(source)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            try:
                run_pytest(tests, source, Path(folder))
            finally:
                os._exit(3)
        if not wait(pid, timeout):
            return "endless", f"{timeout:g} s"
        output = Path(folder, "output").read_text(encoding="utf-8", errors="replace")
        result = Path(folder, "result")
        if not result.exists():
            return "broken", output
        code, passed, failed = json.loads(result.read_text())
        if code == 1 and failed:
            return "killed", failed
        if code:
            return "broken", output
        return ("survived" if passed else "not run"), ""


def run_pytest(tests: str, source: Path, folder: Path) -> None:
    """In the child: leaves `output` and `result` (status, tests that passed, first that failed) in `folder`."""
    descriptor = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    threading.main_thread().name = "MainThread"  # it is the one that forked
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(source), os.environ.get("PYTHONPATH")]))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # an edit in the same second, of the same size, would be taken for old
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(source))
    outcomes = Outcomes()
    pytest = importlib.import_module("pytest")
    options = ["-x", "-p", "no:cacheprovider", "--basetemp", str(folder / "pytest-tmp")]
    code = pytest.main([*options, *shlex.split(tests)], plugins=[outcomes])
    imported = importlib.import_module("open_r1").__file__ or ""
    assert imported.startswith(str(source)), f"tests ran on {imported}"
    (folder / "result").write_text(json.dumps([int(code), outcomes.passed, outcomes.failed]))


def wait(pid: int, timeout: float) -> bool:
    """Whether the process ended in time; ends it and all that it started in any case."""
    deadline = time.monotonic() + timeout
    ended = False
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
        ended = os.waitpid(pid, os.WNOHANG)[0] == pid
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not ended:
        os.waitpid(pid, 0)
    return ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of names or files; default: all")
    parser.add_argument("--list", action="store_true", help="show them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at the same time; default: one a core")
    parser.add_argument("--timeout", type=float, default=300, metavar="S", help="seconds for the tests of one edit")
    parser.add_argument("--no-baseline", action="store_true", help="do not first run the tests on src as it is")
    args = parser.parse_args()
    mutants = read_mutants()
    if old := stale(mutants):
        print("stale edits:", *old, sep="\n  ")
        return 2
    mutants = [m for m in mutants if not args.words or any(word in f"{m.file} {m.name}" for word in args.words)]
    if args.list or not mutants:
        print(*(f"{m.file}: {m.name}" for m in mutants), f"{len(mutants)} edits", sep="\n")
        return 0 if mutants else 2
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    with ThreadPoolExecutor(args.jobs) as threads:
        if not args.no_baseline and (bad := failing_without_edit(mutants, args.timeout, threads)):
            print("without any edit:", *bad, sep="\n")
            return 2
        counts: Counter[str] = Counter()
        results = threads.map(lambda mutant: run(mutant.tests, args.timeout, mutant), mutants)
        for mutant, (kind, what) in zip(mutants, results, strict=True):
            counts[kind] += 1
            print(f"{kind:8}  {mutant.file}: {mutant.name}  ({what[-2000:]})", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 0 if counts.keys() == {"killed"} else 1


def failing_without_edit(mutants: list[Mutant], timeout: float, threads: ThreadPoolExecutor) -> list[str]:
    """Tests that would kill any edit, or none, because they fail or do not run on src as it is."""
    selections = list(dict.fromkeys(mutant.tests for mutant in mutants))
    results = threads.map(lambda tests: run(tests, timeout), selections)
    return [
        f"{tests}: {kind} {what[-2000:]}"
        for tests, (kind, what) in zip(selections, results, strict=True)
        if kind != "survived"
    ]


if __name__ == "__main__":
    sys.exit(main())
