"""Requirements of the optimizers of transformers (`optim`): a package, and memory per trained weight."""

from importlib.util import find_spec

from transformers import TrainingArguments

from open_r1.training.backends import asks_fsdp

BITSANDBYTES = ("adamw_bnb", "adamw_8bit", "ademamix", "lion", "paged", "rmsprop_bnb")
"""Prefixes of names that need bitsandbytes."""
TORCHAO = ("adamw_torch_8bit", "adamw_torch_4bit")
MOMENTS = {"sgd": 0, "adafactor": 0, "lion": 1, "adagrad": 1, "rmsprop": 1, "ademamix": 3}
"""Stored numbers per weight, by prefix of the name. All others have the two of Adam (arXiv 1412.6980, algorithm 1)."""


def why_unusable(args: TrainingArguments) -> str | None:
    """A sentence if `optim` needs a package that is not installed, or does not know weights that FSDP2 has sharded."""
    name = optimizer_name(args)
    package = "bitsandbytes" if name.startswith(BITSANDBYTES) else "torchao" if name in TORCHAO else None
    if package is not None and find_spec(package) is None:
        return f"optim is {name}, but {package} is not installed: pip install {package}."
    return why_not_sharded(args) if asks_fsdp(args) else None


def why_not_sharded(args: TrainingArguments) -> str | None:
    """A sentence if `optim` does not know weights that FSDP2 has sharded."""
    name = optimizer_name(args)
    if not name.startswith(BITSANDBYTES):
        return None
    return (
        f"optim is {name}, and bitsandbytes cannot update weights that FSDP has sharded: set it to adamw_torch_fused "
        "or adamw_torch_8bit (torchao), whose moments are sharded too, or use --accelerator ddp."
    )


def moment_bytes(args: TrainingArguments, weight_bytes: int) -> float:
    """Bytes per weight that the optimizer stores on the GPU. Moments have the weights' dtype, unless the name says
    otherwise. Paged ones leave the GPU when memory is short, so they do not count."""
    name = optimizer_name(args)
    if name.startswith("paged"):
        return 0
    numbers = next((count for prefix, count in MOMENTS.items() if name.startswith(prefix)), 2)
    bits = next((bits for bits in (8, 4, 32) if name.endswith(f"{bits}bit")), 8 * weight_bytes)
    return numbers * bits / 8


def keeps_embeddings_whole(args: TrainingArguments) -> bool:
    """Whether the GPU stores the moments of embeddings in 32 bits anyway, as transformers does it for bitsandbytes.
    Paged optimizers page these moments, too."""
    name = optimizer_name(args)
    return name.startswith(BITSANDBYTES) and name.endswith("8bit") and not name.startswith("paged")


def optimizer_name(args: TrainingArguments) -> str:
    """`optim` as text."""
    return str(getattr(args.optim, "value", args.optim))
