"""A tiny model and a few problems, for runs of whole benchmarks."""

import json

import pytest
from toys import make_model, make_tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    folder = make_tokenizer(tmp_path_factory.mktemp("tiny"))
    return make_model(folder, max_position_embeddings=256)


@pytest.fixture
def sums(tmp_path):
    """A file of six problems."""
    path = tmp_path / "data" / "sums.jsonl"
    path.parent.mkdir()
    rows = [{"problem": f"{i} + {i}?", "answer": str(2 * i), "id": f"s{i}"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
