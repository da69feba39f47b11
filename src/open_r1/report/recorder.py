"""The record of a run: `config.yaml`, `environment.json`, `metrics.jsonl` and `rollouts/`.

Everything shown later (progress pages, model cards, comparisons) is made from these files.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from open_r1.errors import UserError
from open_r1.files import write_json, write_text, write_whole
from open_r1.report.environment import describe_environment, plain, redacted
from open_r1.report.figures import finite

logger = logging.getLogger(__name__)

ROLLOUT_COLUMNS = {
    "step": pa.int64(),
    "prompt": pa.string(),
    "gold": pa.string(),
    "completion": pa.string(),
    "n_tokens": pa.int64(),
    "finish_reason": pa.string(),
    "reward": pa.float64(),
    "advantage": pa.float64(),
}
REWARD_PREFIX = "reward/"
ROW_GROUP = 128
"""Rows of a file of rollouts that are read together."""

# Options that say where a run goes and what it tells, not what it computes.
BYSTANDERS = re.compile(
    r"(output_dir|run_name|project|report_to|disable_tqdm|resume_from_checkpoint|dry_run|trackio_.*|wandb_.*"
    r"|push_to_hub.*|hub_.*|log_.*|logging_.*|save_.*|max_tokens_per_microbatch|max_tokens_per_decode"
    r"|dataset_num_proc|dataloader_.*|eval_on_start|benchmarks.*|.*_eval_.*|eval_strategy|eval_steps|config)"
)


class RunRecorder:
    """Writes `<output_dir>/run/`. Only the main process writes. Nothing is recorded before `start` (such as an
    evaluation of a model that is not trained yet)."""

    def __init__(self, output_dir: Path | str, config: Mapping[str, Any], is_main: bool) -> None:
        self.run_dir = Path(output_dir) / "run"
        self.config: dict[str, Any] = redacted(plain(config))
        self.is_main = is_main
        self._started = False

    def start(
        self, resume_step: int, history: Sequence[Mapping[str, Any]] = (), earlier: Mapping[str, Any] | None = None
    ) -> str | None:
        """Opens the folder for a run that continues after `resume_step` (0: from the beginning).

        Metrics and rollouts after that step are discarded, because the run writes them again. So is a line that a
        kill left incomplete. Lines that are missing or damaged are restored from `history`, the
        checkpoint's own log (Trainer's `log_history`), with a warning. `earlier` are the checkpoint's settings; without
        them, those in `config.yaml` count. Returns (and logs) one sentence if a resumed run's settings changed.
        """
        if not self.is_main:
            return None
        self._started = True
        self.run_dir.mkdir(parents=True, exist_ok=True)
        note = self._settings_changed(earlier) if resume_step else None
        if note:
            logger.warning(note)
        config_text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True, width=110)
        write_text(self.run_dir / "config.yaml", config_text)
        write_json(self.run_dir / "environment.json", describe_environment())
        self._discard_after(resume_step, history)
        return note

    def log_metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends one line `{"step": step, ...}`; values that are not finite become null."""
        if not self._started:
            return
        with (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(_metrics_line({**metrics, "step": step}))

    def log_rollouts(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes `rollouts/step-NNNNNN.parquet`, completely or not at all.

        A row has the keys of `ROLLOUT_COLUMNS` (without `step`) and one `reward/<name>` for each reward,
        None where the reward does not apply. Messages and other structured prompts and golds become JSON.
        """
        if not self._started:
            return
        table = _rollout_table(step, list(rows))
        path = self.run_dir / "rollouts" / f"step-{step:06d}.parquet"
        path.parent.mkdir(exist_ok=True)
        write_whole(path, lambda temporary: pq.write_table(table, temporary, row_group_size=ROW_GROUP))

    def _settings_changed(self, earlier: Mapping[str, Any] | None) -> str | None:
        if earlier is None:
            earlier = read_config(self.run_dir)
        if not earlier:
            return None
        keys = [key for key in {**earlier, **self.config} if not BYSTANDERS.fullmatch(key)]
        changes = [
            f"{key} (was {earlier.get(key)!r}, now {self.config.get(key)!r})"
            for key in keys
            if earlier.get(key) != self.config.get(key)
        ]
        if not changes:
            return None
        return f"This run continues with changed settings: {', '.join(changes)}."

    def _discard_after(self, step: int, history: Sequence[Mapping[str, Any]]) -> None:
        path = self.run_dir / "metrics.jsonl"
        if path.exists() or history:
            content = path.read_bytes() if path.exists() else b""
            lines = [line for line in readable_lines(content) if _belongs(line["step"], step)]
            write_text(path, "".join(map(_metrics_line, _restored(path, lines, history))))
        for file in (self.run_dir / "rollouts").glob("*"):
            number = rollout_step(file)
            if file.suffix == ".tmp" or (number is not None and not _belongs(number, step)):
                file.unlink()


def read_config(run_dir: Path | str) -> dict[str, Any]:
    """The options in `<run_dir>/config.yaml`; none, with a warning, if the file is damaged."""
    path = Path(run_dir) / "config.yaml"
    if not path.exists():
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if isinstance(config, dict):
        return config
    logger.warning("%s is damaged, so changed settings cannot be detected.", path)
    return {}


def readable_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The complete lines of `content` that have the format of a run's metrics; damaged ones are left out."""
    for text in content.split(b"\n")[:-1]:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            yield line


def _restored(path: Path, lines: list[dict[str, Any]], history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`lines`, or, where they lack some of `history`, that and the evaluations that came after the checkpoint."""
    logged = [json.loads(_metrics_line(entry)) for entry in history if is_metrics(entry)]
    there, expected = ({json.dumps(line, sort_keys=True) for line in part} for part in (lines, logged))
    if not expected - there:
        return lines
    logger.warning(
        "%s was damaged: %d of %d lines before the checkpoint were missing or changed. They are restored from the "
        "checkpoint.",
        path,
        len(expected - there),
        len(expected),
    )
    later = [line for line in lines if not set(line) - {"step", "epoch"} - {n for n in line if n.startswith("eval_")}]
    known = {(line["step"], *sorted(line)) for line in logged}
    others = [line for line in later if (line["step"], *sorted(line)) not in known]
    return sorted(logged + others, key=lambda line: line["step"])


def is_metrics(logs: Mapping[str, Any]) -> bool:
    """Whether Trainer's log has metrics of a step or of an evaluation, which a run records."""
    return "loss" in logs or any(name.startswith("eval_") for name in logs)


def read_metrics(run_dir: Path | str) -> list[dict[str, Any]]:
    """The lines of `<run_dir>/metrics.jsonl` in order; a last line still being written is left out."""
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{path} does not exist: give the `run` folder of a training run.")
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    metrics = []
    for number, line in enumerate(lines[:-1], start=1):  # every whole line ends in a newline
        try:
            metrics.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines) - 1:
                break
            raise UserError(f"{path}, line {number}, is not JSON ({error.msg}): delete that line.") from error
    return metrics


def read_rollouts(run_dir: Path | str, step: int | None = None) -> pa.Table:
    """The rollouts of one step, or of all steps in order; see `RunRecorder.log_rollouts` for the columns."""
    folder = Path(run_dir) / "rollouts"
    files = {
        number: file for file in sorted(folder.glob("step-*.parquet")) if (number := rollout_step(file)) is not None
    }
    if step is not None:
        if step not in files:
            have = f"it has steps {min(files)} to {max(files)}" if files else "it has no rollouts"
            raise UserError(f"{folder} has no rollouts of step {step}: {have}.")
        return pq.ParquetFile(files[step]).read()
    if not files:
        return pa.schema(ROLLOUT_COLUMNS.items()).empty_table()
    tables = [pq.ParquetFile(files[number]).read() for number in sorted(files)]
    return pa.concat_tables(tables, promote_options="default")


def _belongs(step: int, resume_step: int) -> bool:
    """Whether a record is from before the point of resumption. A run that starts over keeps nothing."""
    return resume_step > 0 and step <= resume_step


def rollout_step(file: Path) -> int | None:
    match = re.fullmatch(r"step-(\d+)\.parquet", file.name)
    return int(match[1]) if match else None


def _metrics_line(metrics: Mapping[str, Any]) -> str:
    line = {"step": metrics["step"], **metrics}
    return json.dumps(finite(plain(line)), ensure_ascii=False, allow_nan=False) + "\n"


def _rollout_table(step: int, rows: list[Mapping[str, Any]]) -> pa.Table:
    rewards = {key: pa.float64() for row in rows for key in row if key.startswith(REWARD_PREFIX)}
    schema = pa.schema({**ROLLOUT_COLUMNS, **rewards}.items())
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise ValueError(f"unknown rollout columns: {sorted(unknown)}")
    columns = {field.name: [finite(plain(row.get(field.name))) for row in rows] for field in schema}
    columns["step"] = [step] * len(rows)
    for field in schema:
        if field.type == pa.string():
            columns[field.name] = [None if value is None else _text(value) for value in columns[field.name]]
    return pa.table(columns, schema=schema)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="replace").decode()  # halves of surrogate pairs have no UTF-8
