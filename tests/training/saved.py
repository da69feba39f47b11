"""What autograd keeps of a forward pass: a measure of activation memory that needs no GPU."""

from torch.autograd.graph import saved_tensors_hooks

from open_r1.training.packing import build_pack


def saved_bytes(model, sequences, group=None):
    """Bytes of all tensors that the forward pass of a pack keeps for the backward pass, but the model's own."""
    kept = []

    def pack(tensor):
        kept.append(tensor)  # alive, so that no other tensor gets its place
        return tensor

    packed = build_pack(sequences, group=group)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(pack=packed)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept if t.numel()}
    return sum(size for place, size in storages.items() if place not in own)
