"""Problems, servers that answer them, and runs of `open-r1 generate`."""

import json
import re

import pytest
from fake_openai import fake_server

from open_r1 import generate


def add_up(question):
    """The right answer to `a + b?`, wrong for every seventh `a`."""
    a, b = map(int, re.findall(r"\d+", question)[:2])
    return f"<think>\n{a} and {b}\n</think>\n\\boxed{{{a + b + (a % 7 == 6)}}}"


@pytest.fixture
def sums(tmp_path):
    """A file of thirty problems."""
    return write_sums(tmp_path / "sums.jsonl", 30)


def write_sums(path, count):
    rows = [{"problem": f"{i} + 1?", "answer": str(i + 1), "id": f"s{i}", "level": i % 3} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def server():
    with fake_server(answer=add_up) as server:
        yield server


@pytest.fixture
def run(sums, tmp_path):
    """`open-r1 generate` on the problems with a server."""

    def run(url, *options, output="out", data=sums):
        folder = tmp_path / output
        arguments = ["--hf-dataset", str(data), "--prompt-column", "problem", "--model", "m", "--output", str(folder)]
        generate.main([*arguments, "--vllm-server-url", url, "--max-new-tokens", "64", *options])
        return folder

    return run
