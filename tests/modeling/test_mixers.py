"""Gated delta nets over packs by fla-core, against document by document."""

import pytest
from tiny_models import documents, gradients, make

from open_r1.modeling import mixers
from open_r1.training.packing import build_pack

pytestmark = pytest.mark.gpu


def test_kernels_that_know_boundaries_equal_document_by_document(monkeypatch):
    pytest.importorskip("fla")
    sizes = {"linear_key_head_dim": 64, "linear_value_head_dim": 64}
    model, sequences = make("qwen3_5", **sizes).cuda(), documents([300, 70, 11, 513, 129, 64])

    def computed():
        logprobs = model(pack=build_pack(sequences, "cuda")).logprobs
        logprobs.sin().sum().backward()
        return logprobs.detach(), gradients(model)

    found, slopes = computed()
    monkeypatch.setattr(mixers, "takes_boundaries", lambda module: False)
    expected, expected_slopes = computed()
    assert (found - expected).abs().max() < 2e-2
    for name, slope in expected_slopes.items():
        assert (slopes[name] - slope).norm() <= 0.02 * slope.norm() + 1e-4, name
