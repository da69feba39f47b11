"""The benchmarks as tasks of lighteval 0.13 (`--custom-tasks src/open_r1/evaluate.py`), for comparing numbers.

Problems, prompts, gold answers and numbers of samples are those of `open-r1 evaluate`; lighteval extracts and compares
the answers (letters too as mathematics: its extraction of letters does not see boxes). Tasks are called
`open_r1:math_500` and so on, because lighteval's own have the plain names. With OPEN_R1_DATA_DIR, a folder as of
`--data-dir`, problems that are there come from its files and not from the hub.
"""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc

from open_r1.data.load import load_split
from open_r1.evaluation.problems import Task, folder_name
from open_r1.evaluation.rows import local_file
from open_r1.evaluation.tasks import TASKS, make_problem


def tasks_table() -> list[LightevalTaskConfig]:
    """A configuration for each benchmark with gold answers; lighteval has LiveCodeBench itself."""
    data_dir = os.environ.get("OPEN_R1_DATA_DIR")
    return [
        _config(task, None if data_dir is None else local_file(task, Path(data_dir)))
        for task in TASKS.values()
        if not task.programs
    ]


def _config(task: Task, file: Path | None) -> LightevalTaskConfig:
    source = task.source
    assert source is not None
    split = source.split if file is None else "test"
    return LightevalTaskConfig(
        name=f"open_r1:{folder_name(task.name)}",
        prompt_function=lambda row, name=None: _doc(task, row, name),
        hf_repo=source.id if file is None else _folder_with(file),
        hf_subset=(source.config or "default") if file is None else "default",
        hf_revision=source.revision if file is None else None,
        hf_avail_splits=[split],
        evaluation_splits=[split],
        generation_size=task.max_new_tokens,
        metrics=[Metrics.pass_at_k_math(sample_params={"k": 1, "n": task.samples})],
    )


def _doc(task: Task, row: dict[str, Any], name: str | None) -> Doc:
    problem = make_problem(task, row, row["__index"], f"{task.name}, row {row['__index'] + 1}")
    return Doc(task_name=name, query=problem.prompt, choices=[as_latex(problem.gold)], gold_index=0)


def as_latex(gold: str) -> str:
    """A gold answer between dollar signs, without which lighteval does not parse LaTeX."""
    return f"${gold}$"


def _folder_with(file: Path) -> str:
    """A folder with only these rows: lighteval reads whole folders, and takes the split from the file's name."""
    folder = Path(tempfile.mkdtemp(prefix="open_r1-lighteval-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rows = load_split(str(file)).to_list()
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)
