"""Under torchrun, `shared_packs.py OUT`: loss and gradients of packs that processes share, for many models.

OUT gets, by case, what `one_process` and `in_groups` say.
"""

import itertools
import os
import sys

import torch
import torch.distributed as dist
from test_sharing import grouped
from tiny_models import KINDS, documents, gradients, make

from open_r1.modeling.sequence_parallel import sequence_group
from open_r1.training.packing import build_pack

SEQUENCES = {
    "documents": documents([2, 9, 3, 30, 12, 12, 5, 17]),
    "shared prompts": grouped(),
    "shorter than a group": documents([3], seed=2),
}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8}
"""Key-value heads are as many as processes, or fewer."""
CASES = [(kind, "documents", False) for kind in KINDS if kind != "llama"]
CASES += [("llama", sequences, checkpointing) for sequences in SEQUENCES for checkpointing in (False, True)]


def loss_and_gradients(model, sequences, group=None):
    """Of one pack, weighted at random, and its entropies."""
    pack = build_pack(sequences, group=group)
    out = model(pack=pack, temperature=0.7)
    loss = (out.logprobs * pack.fields.weight).sum()
    loss.backward()
    return loss.item(), out.entropies, gradients(model)


def in_groups(kind, name, checkpointing, size):
    """Gradients are averaged over all processes, as DDP and FSDP do."""
    model = make(kind, **HEADS)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss, entropies, found = loss_and_gradients(model, SEQUENCES[name], sequence_group(size, "cpu"))
    for gradient in found.values():
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
    return loss, entropies, found


if __name__ == "__main__":
    dist.init_process_group("gloo")
    results = {}
    for size, case in itertools.product((2, 4), CASES):
        results[size, *case] = in_groups(*case, size)
    if os.environ["RANK"] == "0":
        torch.save(results, sys.argv[1])
    dist.destroy_process_group()
