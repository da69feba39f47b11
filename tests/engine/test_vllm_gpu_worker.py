"""How large vLLM's cache becomes on a GPU that others use, with PyTorch's and vLLM's figures given."""

from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.vllm
GIB = 2**30


@pytest.fixture
def worker(monkeypatch):
    """A worker with a share of 12 GiB that has 4 GiB, and whose trial run takes 2 GiB more."""
    from vllm.v1.worker.gpu_worker import Worker

    from open_r1.engine.vllm_gpu_worker import GPUWorker

    allocated = {"now": 4 * GIB, "peak": 9 * GIB}
    found = object.__new__(GPUWorker)
    found.requested_memory = 12 * GIB
    found.cache_config = SimpleNamespace(kv_cache_memory_bytes=None)
    found.model_config = SimpleNamespace(enforce_eager=False)

    def trial_run(self):
        assert self.cache_config.kv_cache_memory_bytes  # else vLLM looks at the whole GPU
        allocated["peak"] = 6 * GIB
        return self.cache_config.kv_cache_memory_bytes

    monkeypatch.setattr(Worker, "determine_available_memory", trial_run)
    monkeypatch.setattr(torch.accelerator, "memory_allocated", lambda: allocated["now"])
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda: allocated["peak"])
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda: allocated.update(peak=allocated["now"]))
    return found


@pytest.mark.parametrize(("eager", "left"), [(False, 4.5), (True, 5.5)])
def test_the_cache_is_what_the_share_leaves(worker, eager, left):
    worker.model_config.enforce_eager = eager
    assert worker.determine_available_memory() == left * GIB == worker.cache_config.kv_cache_memory_bytes


def test_a_share_that_is_too_small_says_what_takes_it(worker):
    worker.requested_memory = 6 * GIB
    with pytest.raises(ValueError, match=r"share of the GPU is 6\.0 GiB, and vLLM needs 4\.0 GiB for weights"):
        worker.determine_available_memory()
