"""`benchmarks/native.py`: which part of a decoding step a kernel belongs to."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def native():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.delitem(sys.modules, "generation", raising=False)  # the folder of other tests, if they ran before
        yield importlib.import_module("native")


@pytest.mark.parametrize(
    ("kernel", "launches", "part"),
    [
        ("attend", 28, "attention over pages"),
        ("choose", 1, "sampling"),
        ("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0", 28, "norms"),
        ("nvjet_sm90_tst_192x208_64x4_1x2_h_bz_coopB_TNT", 56, "matrix products of layers"),
        ("nvjet_sm90_tss_256x152_64x4_1x2_h_bz_coopA_TNT", 1, "head"),
        ("void at::native::vectorized_gather_kernel<16, long>(char*)", 5, "everything else"),
    ],
)
def test_each_kernel_belongs_to_a_part_of_the_step(native, kernel, launches, part):
    assert native.part_of(kernel, launches, 28).startswith(part)
