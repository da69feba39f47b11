"""What the code needs of accelerate, datasets, torch and DeepSpeed beyond their public names."""

import pytest
import torch
from datasets import Dataset

from open_r1.internals.accelerate import launch_arguments
from open_r1.internals.datasets import rows_fingerprint
from open_r1.internals.torch import independent_dynamic_sizes


def test_options_of_accelerate_launch_are_merged_with_its_file(tmp_path):
    (tmp_path / "ddp.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\nmixed_precision: bf16\n")
    words = ["--config_file", str(tmp_path / "ddp.yaml"), "--num_processes", "3", "script.py"]
    args = launch_arguments(words)
    assert (args.num_processes, args.mixed_precision, args.multi_gpu) == (3, "bf16", True)


def test_fingerprints_follow_the_rows():
    rows = Dataset.from_dict({"a": [1, 2]})
    assert rows_fingerprint(rows) != rows_fingerprint(rows.map(lambda row: {"a": row["a"] + 1}))
    assert rows_fingerprint(rows) == rows_fingerprint(rows)


def test_equal_examples_of_dynamic_sizes_stay_two_sizes():
    seen = []

    def note(graph, examples):
        values = [node.meta.get("example_value") for node in graph.graph.nodes if node.op == "placeholder"]
        seen.append({str(value.shape[0]) for value in values if isinstance(value, torch.Tensor)})
        return graph.forward

    torch.compiler.reset()
    with independent_dynamic_sizes():
        torch.compile(lambda a, b: (a + 1, b + 1), dynamic=True, backend=note)(torch.zeros(7), torch.zeros(7))
    assert [len(sizes) for sizes in seen] == [2]


@pytest.mark.deepspeed
def test_deepspeed_has_the_switch_of_its_shared_memory_reduction():
    import deepspeed

    from open_r1.internals.deepspeed import disable_shared_memory_reduction

    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
    disable_shared_memory_reduction()
    assert deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False
