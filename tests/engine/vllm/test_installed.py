"""Which vLLM is there, and what it is told about its samplers."""

import pytest

from open_r1.engine.vllm.installed import SAMPLER, check_installed, sampler_variables
from open_r1.errors import UserError


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without a compiler for CUDA."""
    monkeypatch.delenv(SAMPLER, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    return tmp_path


def test_flashinfers_sampler_is_left_out_where_nothing_can_compile_it(bare):
    assert sampler_variables() == {SAMPLER: "0"}


@pytest.mark.parametrize("path", ["nvcc", "cuda/bin/nvcc"])
def test_where_something_can_vllm_decides_by_the_gpu(bare, path):
    """Told to take the sampler, vLLM ends on GPUs that FlashInfer is not for."""
    nvcc = bare / path
    nvcc.parent.mkdir(parents=True, exist_ok=True)
    nvcc.touch(mode=0o755)
    assert sampler_variables() == {}


def test_a_setting_of_ones_own_stays(bare, monkeypatch):
    monkeypatch.setenv(SAMPLER, "1")
    assert sampler_variables() == {}


def test_without_vllm_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr("open_r1.engine.vllm.installed.version_of_vllm", lambda: None)
    with pytest.raises(UserError, match="vLLM is not installed"):
        check_installed()
