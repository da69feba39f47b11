"""What a training step allocates, by PyTorch's own account of every tensor: it runs on tensors without values, so that
real sizes need neither a GPU nor time."""

import weakref

import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForCausalLM

from open_r1.modeling import flash, head
from open_r1.modeling.attention import ATTENTION
from open_r1.modeling.mlp import chunk_mlps
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import TokenSequence, build_pack


class Meter(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, until they are freed."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = set(), 0, 0

    def see(self, tensor):
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place in self.alive:
            return
        self.alive.add(place)
        weakref.finalize(storage, self.free, place, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def free(self, place, size):
        self.alive.remove(place)
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self.see(tensor)
        return out


def as_on_a_gpu(monkeypatch):
    """Attention is one operation, and the head's softmax is compiled: it has no intermediate results."""
    monkeypatch.setattr(flash, "fits", lambda q, v: True)
    monkeypatch.setattr(head, "MAX_LOGITS", head.MAX_LOGITS_COMPILED)
    monkeypatch.setattr(head, "float32_product", lambda hidden, weight, bias: torch.empty(len(hidden), len(weight)))

    def add_product(total, left, right):
        return torch.empty(len(left), right.shape[1]) if total is None else total.add_(1)

    monkeypatch.setattr(head, "add_product", add_product)

    def statistics(product, targets, rule):
        return tuple(torch.empty(len(targets)) for _ in range(3))

    monkeypatch.setattr(head, "_functions", lambda device: (statistics, lambda out, *args: None))


def peak_bytes(config, tokens, *, dtype, autocast, checkpointing=True, chunk=None, rank=0, packs=1):
    """The peak of a step of Adam's over `packs` of one document each; weights of `dtype`, adapters of `rank`."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=ATTENTION).train()
    add_logprob_forward(model)
    if chunk is not None:
        chunk_mlps(model, chunk)
    if rank:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules="all-linear"))
    pack = build_pack([TokenSequence(torch.zeros(tokens, dtype=torch.long), torch.arange(tokens) > 0)])
    with FakeTensorMode(allow_non_fake_inputs=True), Meter() as meter:
        materialize(model, meter)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        moments = [torch.zeros_like(p) for p in model.parameters() if p.requires_grad for _ in range(2)]
        for _ in range(packs):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = model(pack=pack, recompute=checkpointing)
            out.logprobs.sum().backward()
        del moments
    return meter.peak


def materialize(model, meter):
    """Replaces weights on the meta device by ones of the surrounding mode."""
    made = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None and old not in made:
                    made[old] = torch.empty(old.shape, dtype=old.dtype)
                    if isinstance(old, torch.nn.Parameter):
                        made[old] = torch.nn.Parameter(made[old], requires_grad=old.requires_grad)
                    meter.see(made[old])
                tensors[name] = made.get(old)
