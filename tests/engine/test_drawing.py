import numpy as np
import pytest

from open_r1.engine.drawing import uniform_streams


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 1, 2**64 - 1, -1])
def test_a_stream_is_that_of_a_generator_of_its_own(seed):
    streams = [(seed, 0, 9), (seed, 3, 5), (5, 1, 0), (seed, 0, 2)]
    for (seed, index, length), found in zip(streams, uniform_streams(streams), strict=True):
        key = np.array([seed % 2**64, index], dtype=np.uint64)
        expected = np.random.Generator(np.random.Philox(key=key)).random(length, dtype=np.float32)
        np.testing.assert_array_equal(found, expected)
