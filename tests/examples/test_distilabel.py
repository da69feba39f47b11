"""The distilabel example, in an environment of its own, against a fake server; what it writes is verified."""

import json
import subprocess
from pathlib import Path

import pytest
from datasets import load_dataset
from fake_openai import fake_server
from generation.conftest import add_up, write_sums

from open_r1.curation import command

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-distilabel" / "bin" / "python"


@pytest.mark.distilabel
def test_the_pipeline_writes_what_verify_reads(tmp_path):
    assert PYTHON.exists(), "make test-distilabel installs it"
    sums = write_sums(tmp_path / "sums.jsonl", 8)
    with fake_server(answer=lambda prompt: add_up(prompt.rpartition("\n")[2])) as server:
        words = ["--dataset", sums, "--model", "m", "--vllm-server-url", server.url, "--max-new-tokens", "64"]
        script = [PYTHON, ROOT / "examples" / "distilabel_pipeline.py", *words, "--output", tmp_path / "traces"]
        done = subprocess.run(list(map(str, script)), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {(body["n"], body["max_tokens"]) for body in server.bodies} == {(4, 64)}
    rows = load_dataset(str(tmp_path / "traces"), split="train")
    assert [len(generations) for generations in rows["generation"]] == [4] * 8
    command.main(["verify", str(tmp_path / "traces"), "--output", str(tmp_path / "verified"), "--choose", "all"])
    report = json.loads((tmp_path / "verified" / "run" / "report.json").read_text())
    assert (report["read"], report["kept"], report["dropped"]) == (32, 28, {"wrong": 4})
