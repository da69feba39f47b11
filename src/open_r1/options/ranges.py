"""Numbers that options must lie between, so that a slip is a sentence and not a run that learns nothing."""

import math
from operator import ge, gt, le
from typing import Any

from open_r1.errors import UserError

AT_LEAST: dict[str, float] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_tokens_per_microbatch": 1,
    "learning_rate": 0,
    "seed": 0,
    "max_length": 2,
    "num_generations": 2,
    "num_iterations": 1,
    "steps_per_generation": 1,
    "max_completion_length": 1,
    "max_tokens_per_decode": 1,
    "hang_timeout": 0,
    "benchmarks_every_n_steps": 1,
    "benchmarks_limit": 1,
    "benchmarks_num_samples": 1,
    "benchmarks_max_new_tokens": 1,
    "max_staleness": 0,
    "max_num_gen_batches": 1,
    "epsilon": 0,
    "epsilon_high": 0,
    "beta": 0,
    "lora_r": 1,
    "vllm_engines_per_gpu": 1,
    "vllm_max_model_length": 2,
    "vllm_server_port": 1,
    "vllm_group_port": 0,
    "vllm_server_timeout": 0,
}
AT_MOST: dict[str, float] = {"vllm_server_port": 65535, "vllm_group_port": 65535}
ABOVE: dict[str, float] = {
    "num_train_epochs": 0,
    "temperature": 0,
    "delta": 0,
    "vllm_importance_sampling_clip_max": 0,
    "vllm_gpu_memory_utilization": 0,
}


def check_ranges(options: Any) -> None:
    """Raises UserError for the first option of a dataclass that is not a number in its range (None is no number)."""
    for bounds, word, fits in ((AT_LEAST, "at least", ge), (ABOVE, "above", gt), (AT_MOST, "at most", le)):
        for name, bound in bounds.items():
            value = getattr(options, name, None)
            if value is None:
                continue
            if not fits(value, bound) or not math.isfinite(value):
                raise UserError(f"{name} is {value}: it must be {word} {bound}.")
    if getattr(options, "max_steps", -1) == 0:
        raise UserError("max_steps is 0: give the number of optimizer steps, or -1 to go by num_train_epochs.")
