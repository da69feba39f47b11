"""Tries every causal language model of transformers with packs that two processes share (`sequence_parallel_size`).

    torchrun --nproc_per_node 2 scripts/sweep_shared_packs.py              # all of them, a few minutes
    torchrun --nproc_per_node 2 scripts/sweep_shared_packs.py llama phi3   # some

Tiny random models, as in sweep_models.py. One that `check_sequence_parallel` accepts must give the logprobs and the
gradients of one process, in float32 on the CPU. Anything else ends with exit status 1.
"""

import sys
import warnings
from typing import Any

import torch
import torch.distributed as dist
import transformers
from sweep_models import LARGEST, TOLERANCE, _documents, _group, all_kinds, random_models, tiny_config
from torch import Tensor

from open_r1.errors import UserError
from open_r1.modeling.architectures import can_share_prompts, check_sequence_parallel, check_supported, skeleton
from open_r1.modeling.sequence_parallel import SequenceGroup, sequence_group
from open_r1.training.packing import TokenSequence, build_pack


def supported_config(kind: str) -> Any:
    """A tiny configuration of a type that can be trained; None: there is none."""
    try:
        config = tiny_config(kind)
        check_supported(config)
        size = sum(p.numel() for p in skeleton(config).parameters())
    except Exception:  # sweep_models.py says which, and why
        return None
    return config if size <= LARGEST else None


def computed(model: Any, sequences: list[TokenSequence], group: SequenceGroup | None) -> dict[str, Tensor]:
    """Logprobs, and the gradients of a weighted sum of them, averaged over the processes."""
    model.zero_grad(set_to_none=False)
    pack = build_pack(sequences, group=group)
    logprobs = model(pack=pack).logprobs
    (logprobs * torch.linspace(0.5, 1.5, len(logprobs))).sum().backward()
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
    for gradient in found.values() if group is not None else ():
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
    return found | {"logprobs": logprobs.detach()}


def difference(model: Any, sequences: list[TokenSequence], group: SequenceGroup) -> float:
    """The largest, relative to the largest number of its tensor."""
    one, several = (computed(model, sequences, g) for g in (None, group))
    top = max(value.abs().max().item() for value in one.values())
    return max(
        (several[name] - value).abs().max().item() / max(value.abs().max().item(), 1e-3 * top)
        for name, value in one.items()
    )


def verdict(kind: str, config: Any, group: SequenceGroup) -> str:
    """`same`, `refused` with the reason, or `wrong`."""
    try:
        check_sequence_parallel(config, group.size)
    except UserError as refusal:
        return f"refused: {refusal}"
    model = random_models(config)[1]
    packs = [_documents(), _group()] if can_share_prompts(model) else [_documents()]
    worst = max(difference(model, sequences, group) for sequences in packs)
    return "same" if worst < TOLERANCE else f"wrong: by {worst:.2g}"


def main() -> None:
    """Prints a line a type; both processes come to the same."""
    dist.init_process_group("gloo")
    group = sequence_group(dist.get_world_size(), "cpu")
    assert group is not None
    verdicts = {}
    for kind in sys.argv[1:] or all_kinds():
        if (config := supported_config(kind)) is not None:
            verdicts[kind] = verdict(kind, config, group)
            if group.rank == 0:
                print(f"{kind:<24} {verdicts[kind]}", flush=True)
    if group.rank == 0:
        counts = [sum(v.startswith(word) for v in verdicts.values()) for word in ("same", "refused", "wrong")]
        print("{} the same as one process, {} refused, {} wrong".format(*counts))
    dist.destroy_process_group()
    sys.exit(any(v.startswith("wrong") for v in verdicts.values()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    main()
