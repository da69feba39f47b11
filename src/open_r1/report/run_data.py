"""The data of a run's page, only from the run's files: metrics, options, benchmarks, and rollouts that are read on
demand.

Everything has a path, such as `rollouts/0/12` (run 0, step 12). The live page's server answers these paths, and a saved
page contains the answers to some of them.
"""

import hashlib
import json
import os
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from open_r1.errors import UserError
from open_r1.report.figures import rounded
from open_r1.report.health import Health
from open_r1.report.recorder import REWARD_PREFIX, ROLLOUT_COLUMNS, readable_lines, rollout_step

BATCH = 64
"""Rows that are decoded at once when texts are read."""
MOST_PROBLEMS = 20_000
EXCERPT = 160


class MetricsFile:
    """`metrics.jsonl` as it grows; a resumed run, which rewrites it, begins a new `generation`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self.generation = 0
        self._read = 0
        self._file: tuple[int, bytes] | None = None

    def refresh(self) -> None:
        """Reads what was appended since the last call, or everything if the file is another one."""
        try:
            with self.path.open("rb") as file:
                start = file.read(256).partition(b"\n")[0]
                identity = (os.fstat(file.fileno()).st_ino, start)
                if identity != self._file or os.fstat(file.fileno()).st_size < self._read:
                    self.lines, self._read, self._file = [], 0, identity
                    self.generation += 1
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in readable_lines(whole):  # the run itself restores damaged ones from its checkpoint
            self.lines.append({k: rounded(v) if isinstance(v, float) else v for k, v in line.items()})


class Run:
    """A run folder. Raises UserError if `folder` is not one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        try:
            (self.run_dir / "config.yaml").open("rb").close()
        except OSError as error:
            raise _no_run(folder, error) from error
        self._metrics_lock, self._problems_lock = threading.Lock(), threading.Lock()  # several pages may ask at once
        self.metrics = MetricsFile(self.run_dir / "metrics.jsonl")
        self._problems: dict[int, tuple[int, list[tuple[str, str, dict[str, Any]]]]] = {}

    def figures(self, generation: int, after: int) -> dict[str, Any]:
        """The lines of metrics after the first `after` of `generation` (all of another one), and what the page's head
        says."""
        with self._metrics_lock:
            self.metrics.refresh()
            lines, current = self.metrics.lines[:], self.metrics.generation
        config, environment = self._config(), _json(self.run_dir / "environment.json")
        changed = _mtime(self.run_dir / "metrics.jsonl") or _mtime(self.run_dir / "config.yaml")
        return {
            "name": self.folder.resolve().name,
            "folder": str(self.folder),
            "config": config,
            "environment": environment if isinstance(environment, dict) else {},
            "idle": round(max(0.0, time.time() - changed), 1) if changed else None,
            "health": _health(lines),
            "benchmarks": list(self._benchmarks()),
            "steps": sorted(self.rollout_files()),
            "generation": current,
            "from": after if generation == current else 0,
            "lines": lines[after if generation == current else 0 :],
        }

    def rollout_files(self) -> dict[int, Path]:
        """Files of rollouts by step."""
        folder = self.run_dir / "rollouts"
        files = folder.glob("step-*.parquet")
        return {step: file for file in files if (step := rollout_step(file)) is not None}

    def rollouts(self, step: int) -> dict[str, Any]:
        """Prompts and figures of a step, without the texts of its completions."""
        path = self._file(step)
        file = _open(path)
        names = file.schema_arrow.names
        if absent := [name for name in ROLLOUT_COLUMNS if name not in names]:
            raise LookupError(f"{path.name} has no column {absent[0]}: another version or program wrote it.")
        rewards = [name for name in names if name.startswith(REWARD_PREFIX)]
        table = file.read([n for n in names if n not in ("completion", "step")])
        prompts, golds = table["prompt"].to_pylist(), table["gold"].to_pylist()
        groups = [
            {
                "key": _key(prompts[start]),
                "prompt": prompts[start] or "",
                "gold": golds[start],
                "start": start,
                "end": end,
            }
            for start, end in _groups(prompts, self._config().get("num_generations"))
        ]
        return {
            "step": step,
            "groups": groups,
            "reward": _rounded(table["reward"]),
            "advantage": _rounded(table["advantage"]),
            "tokens": table["n_tokens"].to_pylist(),
            "finish": table["finish_reason"].to_pylist(),
            "rewards": {name.removeprefix(REWARD_PREFIX): _rounded(table[name]) for name in rewards},
        }

    def texts(self, step: int, start: int, end: int) -> list[str]:
        """The completions of rows `start` to `end`."""
        found: list[str] = []
        at = 0
        for batch in _completions(self._file(step)):
            if at < end and at + len(batch) > start:
                found += batch.slice(max(0, start - at), end - max(at, start)).to_pylist()
            at += len(batch)
            if at >= end:
                break
        return [text or "" for text in found]

    def search(self, step: int, words: str) -> list[int]:
        """Rows whose completion contains `words`, in upper or lower case."""
        rows: list[int] = []
        at = 0
        for batch in _completions(self._file(step)):
            hits = pc.match_substring(batch, words, ignore_case=True).fill_null(False)
            rows += [at + row for row in pc.indices_nonzero(hits).to_pylist()]
            at += len(batch)
        return rows

    def problems(self) -> list[dict[str, Any]]:
        """Every problem with its results at each step, those seen most often first."""
        with self._problems_lock:
            return self._all_problems()

    def _all_problems(self) -> list[dict[str, Any]]:
        files, size = self.rollout_files(), self._config().get("num_generations")
        for step in [step for step in self._problems if step not in files]:
            del self._problems[step]
        for step, file in sorted(files.items()):
            changed = file.stat().st_mtime_ns
            if self._problems.get(step, (0,))[0] != changed:
                try:
                    self._problems[step] = (changed, list(self._problems_of(step, file, size)))
                except ValueError:
                    continue  # a file that is being copied, or damaged
        found: dict[str, dict[str, Any]] = {}
        for _, (_, groups) in sorted(self._problems.items()):
            for key, excerpt, visit in groups:
                found.setdefault(key, {"key": key, "prompt": excerpt, "visits": []})["visits"].append(visit)
        return sorted(found.values(), key=lambda problem: -len(problem["visits"]))[:MOST_PROBLEMS]

    def _problems_of(self, step: int, path: Path, size: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
        names = ["prompt", "reward", "n_tokens"]
        table = _open(path).read(names)
        if table.column_names != names:
            raise ValueError(f"{path.name} has other columns.")
        prompts, rewards, tokens = (table[name].to_pylist() for name in ("prompt", "reward", "n_tokens"))
        for start, end in _groups(prompts, size):
            known = [reward for reward in rewards[start:end] if reward is not None]
            lengths = [count or 0 for count in tokens[start:end]]
            visit = {
                "step": step,
                "start": start,
                "end": end,
                "reward": rounded(sum(known) / len(known)) if known else None,
                "tokens": rounded(sum(lengths) / len(lengths)),
            }
            yield _key(prompts[start]), (prompts[start] or "")[-EXCERPT:], visit

    def _config(self) -> dict[str, Any]:
        try:
            config = yaml.safe_load((self.run_dir / "config.yaml").read_text("utf-8", errors="replace"))
        except (OSError, yaml.YAMLError):
            return {}
        return config if isinstance(config, dict) else {}

    def _file(self, step: int) -> Path:
        path = self.rollout_files().get(step)
        if path is None:
            raise LookupError(f"There are no rollouts of step {step}.")
        return path

    def _benchmarks(self) -> Iterator[dict[str, Any]]:
        root = self.folder / "evaluation"
        for path in sorted([*root.glob("*/results.json"), *root.glob("step-*/*/results.json")]):
            results = _json(path)
            if not isinstance(results, dict) or "pass@1" not in results or "task" not in results:
                continue
            where = path.parent.parent.name
            step = int(where.removeprefix("step-")) if where.startswith("step-") and where[5:].isdigit() else None
            figures = ("task", "pass@1", "ci95", "n_problems", "num_samples", "mean_tokens", "truncated", "no_answer")
            command = shlex.join(["open-r1", "report", str(path.parent)])
            yield {"step": step, "command": command, **{name: results.get(name) for name in figures}}


class RunPages:
    """The answers to a page's paths, for one run or several."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.runs = [Run(folder) for folder in folders]

    def get(self, path: str, words: str = "") -> Any:
        """The answer to `path`. Raises LookupError or ValueError if there is none."""
        kind, number, *rest = path.split("/")
        run = self.runs[_natural(number)]
        arguments: list[Any] = [_natural(part) for part in rest]
        if kind not in ("figures", "rollouts", "texts", "search", "problems"):
            raise LookupError(f"There is no {kind}.")
        return getattr(run, kind)(*arguments, *([words] if kind == "search" else []))


def _groups(prompts: Sequence[str | None], size: Any) -> Iterator[tuple[int, int]]:
    """Consecutive rows of one prompt. A prompt that was drawn twice in a row makes two groups."""
    start = 0
    for row in range(1, len(prompts) + 1):
        if row == len(prompts) or prompts[row] != prompts[start] or row - start == size:
            yield start, row
            start = row


def _completions(path: Path) -> Iterator[pa.Array]:
    for batch in _open(path).iter_batches(batch_size=BATCH, columns=["completion"]):
        yield batch.column(0)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path.name} cannot be read: it is damaged, or not completely copied yet.") from error


def _no_run(folder: Path, error: OSError) -> UserError:
    """What is wrong with `folder`, and which runs the user may have meant."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return UserError(f"{folder}/run/config.yaml cannot be read ({error.strerror}).")
    inside = sorted(str(path.parent.parent) for path in folder.glob("*/run/config.yaml"))[:8]
    meant = f"one of those in it ({', '.join(inside)})" if inside else "the output_dir of a training run"
    return UserError(f"{folder} has no run/config.yaml: give {meant}.")


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def _key(prompt: str | None) -> str:
    return hashlib.sha256((prompt or "").encode(errors="replace")).hexdigest()[:16]


def _rounded(column: pa.ChunkedArray) -> list[float | None]:
    return [rounded(value) for value in column.to_pylist()]


def _health(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    health = Health()
    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            found += [{"step": line["step"], "text": problem} for problem in health.check(line)]
        except (KeyError, TypeError):
            continue  # a figure that this version logs and that one did not
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
