"""What the code needs of accelerate, datasets and DeepSpeed beyond their public names."""

import pytest
from datasets import Dataset

from open_r1.internals.accelerate import launch_arguments
from open_r1.internals.datasets import rows_fingerprint


def test_options_of_accelerate_launch_are_merged_with_its_file(tmp_path):
    (tmp_path / "ddp.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\nmixed_precision: bf16\n")
    words = ["--config_file", str(tmp_path / "ddp.yaml"), "--num_processes", "3", "script.py"]
    args = launch_arguments(words)
    assert (args.num_processes, args.mixed_precision, args.multi_gpu) == (3, "bf16", True)


def test_fingerprints_follow_the_rows():
    rows = Dataset.from_dict({"a": [1, 2]})
    assert rows_fingerprint(rows) != rows_fingerprint(rows.map(lambda row: {"a": row["a"] + 1}))
    assert rows_fingerprint(rows) == rows_fingerprint(rows)


@pytest.mark.deepspeed
def test_deepspeed_has_the_switch_of_its_shared_memory_reduction():
    import deepspeed

    from open_r1.internals.deepspeed import disable_shared_memory_reduction

    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
    disable_shared_memory_reduction()
    assert deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False
