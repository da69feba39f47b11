"""Every architecture of transformers trains exactly or is refused, and the table in the docs says which."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import sweep_models  # noqa: E402


@pytest.mark.parametrize(
    "kind", ["qwen3_5", "qwen3_5_moe_text", "falcon_h1", "granitemoehybrid", "jamba", "nemotron_h"]
)
def test_mixers_train_exactly_and_engines_decode_with_them(kind):
    assert sweep_models.try_kind(kind).verdict == "trains"


def test_a_wrong_logprob_is_found(monkeypatch):
    monkeypatch.setattr(sweep_models, "can_share_prompts", lambda model: True)
    assert sweep_models.try_kind("qwen3_5_text").verdict == "wrong"


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_a_sweep_finds(tmp_path, monkeypatch):
    page = tmp_path / "models.md"
    page.write_text(sweep_models.PAGE.read_text())
    monkeypatch.setattr(sweep_models, "PAGE", page)
    assert sweep_models.main([]) == 0
    assert page.read_text() == (ROOT / "docs/models.md").read_text()
