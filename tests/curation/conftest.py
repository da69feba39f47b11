"""Datasets as files, and the tools of `open-r1 data` as they are typed."""

import json

import pytest
from datasets import load_dataset

from open_r1.curation import command


@pytest.fixture
def jsonl(tmp_path):
    """Writes rows as a JSON lines file."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def data(tmp_path):
    """`open-r1 data TOOL ...` with an output folder; returns what it wrote, and its report."""

    def run(tool, *words, output="out"):
        folder = tmp_path / output
        command.main([tool, *map(str, words), "--output", str(folder)])
        if not folder.exists():
            return None, None
        return load_dataset(str(folder), split="train"), json.loads((folder / "run" / "report.json").read_text())

    return run
