"""Every Triton kernel compiles for a GPU, by the calls that the engine makes. Needs no GPU: nothing is launched.

What fits into Triton's interpreter need not compile, and the constants of a kernel decide whether it does.
"""

import importlib
import os
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import open_r1
from open_r1.engine.native.slots import Slots
from open_r1.errors import UserError
from open_r1.modeling.head import LogitRule

pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter does not compile", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.errors import OutOfResources, PTXASError

from open_r1.engine.native import kernels
from open_r1.engine.native.kernels import attention, launching, sampling

HOPPER = GPUTarget("cuda", 90, 32)
SHARED_MEMORY = 99 * 1024
"""Bytes that a program may have on GPUs of compute capability 8.6 and 8.9, which have the least."""


class NoDevice:
    """What Triton asks its driver for when it compiles."""

    def get_current_device(self):
        return -1  # not the index of a device: Triton remembers kernels by it

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return HOPPER


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Kernels are compiled instead of launched; the last of each name."""
    kernels = {}

    def warm_up(kernel, grid, *arguments, **options):
        built = kernel.warmup(*arguments, grid=grid, **options)
        assert built.metadata.shared <= SHARED_MEMORY, (kernel.__name__, options)
        kernels[kernel.__name__] = built

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # today's default, about to change
    for module in (attention, sampling):
        monkeypatch.setattr(module, "launch", warm_up)
    monkeypatch.setattr(driver, "_active", NoDevice())  # as set_active; reset_active() needs a GPU
    return kernels


def compile_sampling(vocabulary, dtype=torch.float32, rows=4, width=6, rule=None, truncate=True):
    slots = Slots.empty(rows, width, 1, torch.device("cpu"))
    product = torch.zeros(rows, vocabulary, dtype=dtype)
    sampling.sample_triton(product, slots, torch.arange(rows), rule or LogitRule(), truncate)


def compile_attention(
    width, dtype, heads=4, kv_heads=2, rows=3, size=64, pages=16, cap=0.0, window=0, sinks=False, splits=None
):
    q, k = torch.zeros(rows, heads, width, dtype=dtype), torch.zeros(rows, kv_heads, width, dtype=dtype)
    cache = torch.zeros(pages, 2, kv_heads, size, width, dtype=dtype)
    table, lengths = torch.zeros(rows, pages, dtype=torch.int32), torch.zeros(rows, dtype=torch.int32)
    sink = torch.zeros(heads, dtype=dtype) if sinks else None
    attention.paged_attention_triton(q, k, k, cache, table, lengths, 0.3, cap, window, sink, splits)


FEW_VOCABULARIES = (320, 9001)
VOCABULARIES = (2, 3, 16, 17, 511, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 32003, 151936, 200019)


@pytest.mark.parametrize("vocabulary", FEW_VOCABULARIES)
def test_sampling_compiles_for_any_vocabulary(vocabulary, compiled):
    compile_sampling(vocabulary)
    assert set(compiled) == {"block_sums", "find_floors", "choose"}


def test_no_loop_is_known_not_to_run(compiled):
    """With a load in such a loop, Triton 3.6 stops in TritonGPUCoalesce; later versions do not."""
    compile_sampling(sampling.FEW + 1)
    assert "scf.while" in compiled["find_floors"].asm["ttir"]
    compile_sampling(sampling.FEW)
    assert "scf.while" not in compiled["find_floors"].asm["ttir"]


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", (*FEW_VOCABULARIES, *VOCABULARIES))
def test_sampling_compiles_for_more_vocabularies_and_dtypes(vocabulary, compiled):
    compile_sampling(vocabulary, rows=1, width=1)  # Triton makes constants of sizes of 1
    compile_sampling(vocabulary, torch.bfloat16, rule=LogitRule(0.5, 2.0))
    compile_sampling(vocabulary, torch.float16, truncate=False)


@pytest.mark.parametrize(("width", "dtype"), [(20, torch.float32), (512, torch.bfloat16)])
def test_attention_compiles_for_any_head(width, dtype, compiled):
    compile_attention(width, dtype)
    compile_attention(width, dtype, kv_heads=1, rows=1, pages=1, cap=2.0, window=1, sinks=True)
    assert set(compiled) == {"attend", "join"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("width", (4, 8, 16, 24, 64, 80, 96, 128, 192, 256, 512))
def test_attention_compiles_for_more_heads_and_options(width, dtype, compiled):
    compile_attention(width, dtype, heads=1, kv_heads=1, rows=1)
    compile_attention(width, dtype, heads=16, kv_heads=1, rows=600)
    compile_attention(width, dtype, size=16, pages=200, window=700, splits=7, sinks=True)


def test_the_tests_above_compile_every_kernel():
    """No module of the package has a kernel that nothing compiles."""
    root = Path(open_r1.__file__).parent
    with_kernels = {path for path in root.rglob("*.py") if "triton.jit" in path.read_text()}
    modules = [importlib.import_module(f"{kernels.__name__}.{m.name}") for m in pkgutil.iter_modules(kernels.__path__)]
    assert with_kernels == {Path(attention.__file__), Path(sampling.__file__)} <= {Path(m.__file__) for m in modules}
    text = "".join(path.read_text() for path in with_kernels)
    launched = set(re.findall(r"launch\(\s*(\w+)", text))
    assert launched == {"block_sums", "find_floors", "choose", "attend", "join"}
    assert not re.findall(r"\w\[.*\]\(", text), "only launch() starts kernels"


class Broken:
    """A kernel whose launch raises `error`."""

    __name__ = "find_floors"

    def __init__(self, error):
        self.error = error

    def __getitem__(self, grid):
        def run(*arguments, **options):
            raise self.error

        return run


@pytest.mark.parametrize(
    "error",
    [RuntimeError("PassManager::run failed"), OutOfResources(299076, 232448, "shared memory"), PTXASError("no ptxas")],
)
def test_a_kernel_that_cannot_be_built_says_what_to_do(error):
    with pytest.raises(UserError) as caught:
        launching.launch(Broken(error), (1,), torch.zeros(1), V=320)
    message = str(caught.value)
    assert "find_floors" in message and "float32, V=320" in message and "--engine transformers" in message
    assert str(error).splitlines()[0].rstrip(".") in message and "\n" not in message


def test_an_error_of_the_device_is_not_one_of_the_compiler():
    error = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        launching.launch(Broken(error), (1,))
