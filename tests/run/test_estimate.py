"""The dry run's estimate of time, beside what was measured on GPUs."""

import pytest
from shapes import QWEN_1_5B, QWEN_7B, options

from open_r1.run.estimate import estimate_seconds


@pytest.mark.parametrize(
    ("shape", "document", "rate"),
    [
        (QWEN_1_5B, 6200, 30.7e3),  # SFT of whole traces
        (QWEN_1_5B, 700, 347e12 / 6 / QWEN_1_5B.parameters),  # a GRPO step, computed tokens alone
        (QWEN_7B, 700, 403e12 / 6 / QWEN_7B.parameters),
    ],
)
def test_the_time_is_near_what_gpus_measured(shape, document, rate):
    """Tokens a second of an H100 with checkpointing: docs/performance.md."""
    assert 1e6 / estimate_seconds(shape, options(), 1_000_000, document) == pytest.approx(rate, rel=0.2)
