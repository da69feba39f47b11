"""How large a model is, and how many GPUs its weights need."""

import re
from pathlib import Path

from open_r1.configs import ModelConfig
from open_r1.errors import UserError
from open_r1.modeling.architectures import skeleton
from open_r1.modeling.loading import load_config
from open_r1.training.model import checkpoint_of

SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([bBmM])(?![a-zA-Z])")
WEIGHTS_SHARE = 0.4
"""Largest share of a generator's memory for its weights. The rest is for the cache of keys and values."""


def tensor_parallel(parameters: int, heads: int | None, gpus: int, gpu_memory: int) -> int:
    """The smallest number of GPUs, a power of two that divides the attention heads, whose `WEIGHTS_SHARE` holds the
    bfloat16 weights."""
    size = 1
    while 2 * parameters / size > WEIGHTS_SHARE * gpu_memory:
        size *= 2
        if size > gpus or (heads is not None and heads % size):
            raise UserError(
                f"a generator of {parameters / 1e9:.1f}B parameters needs {2 * parameters / 2**30:.0f} GiB for its "
                f"weights alone, more than the {gpus} GPUs of a node can hold next to its cache: set --tp to the "
                "number of GPUs per generator, or use GPUs with more memory."
            )
    return size


def model_size(model: ModelConfig) -> tuple[int | None, int | None]:
    """Parameters and attention heads, from the configuration alone; by the name (`7B`) if that cannot be read.
    Parameters are None if transformers has no causal language model for it."""
    try:
        config = load_config(checkpoint_of(model))
    except UserError:
        return size_in_name(str(model.model_name_or_path)), None
    heads = getattr(config.get_text_config(), "num_attention_heads", None)
    try:
        return sum(p.numel() for p in skeleton(config, model.trust_remote_code).parameters()), heads
    except ValueError:
        return None, heads


def size_in_name(name: str) -> int | None:
    """Parameters according to a model's name: 7.6B, 135M; None if it has no such number."""
    found = SIZE.findall(Path(name).name)
    if not found:
        return None
    number, unit = found[-1]
    return int(float(number) * (10**9 if unit in "bB" else 10**6))
