"""Statistics of the routers of a mixture of experts: balance, entropy, and whether the trainer uses the same experts
for a token as the sampler did."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from open_r1.internals.transformers import router_outputs


class RouterStatistics:
    """Sums over the tokens that the routers of `model` process in training. Empty if there are no routers."""

    def __init__(self, model: PreTrainedModel) -> None:
        text = model.config.get_text_config()
        names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k")
        chosen = [k for k in (getattr(text, name, None) for name in names) if isinstance(k, int)]
        self.top_k = chosen[0] if chosen else 1
        self.loads: dict[str, Tensor] = {}
        self.entropies: dict[str, Tensor] = {}
        for name, router, index in router_outputs(model):
            router.register_forward_hook(self._hook(name, index))

    def _hook(self, name: str, index: int) -> Any:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            logits = output[index] if isinstance(output, tuple) else output
            if module.training:
                self._count(name, logits.detach().flatten(0, -2).float())

        return count

    @torch.no_grad()
    def _count(self, name: str, logits: Tensor) -> None:
        log_p = logits.log_softmax(-1)
        chosen = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1).indices.flatten()
        load = torch.zeros(logits.shape[-1], device=logits.device).index_add_(
            0, chosen, torch.ones(len(chosen), device=logits.device)
        )
        self.loads[name] = self.loads.get(name, 0) + load
        self.entropies[name] = self.entropies.get(name, 0) - (log_p.exp() * log_p).sum()

    def figures(self) -> dict[str, float]:
        """Metrics since the last call, as means over layers: `router/entropy` of softmax(router logits) in nats, and
        `router/max_load`, the busiest expert's share of all choices times the number of experts (1: perfect balance).
        Choices are the largest logits, without a bias that only balances the load."""
        if not self.loads:
            return {}
        loads = [load / load.sum() * len(load) for load in self.loads.values()]
        tokens = [load.sum() / self.top_k for load in self.loads.values()]
        entropies = [e / n for e, n in zip(self.entropies.values(), tokens, strict=True)]
        found = {
            "router/max_load": torch.stack([load.max() for load in loads]).mean().item(),
            "router/entropy": torch.stack(entropies).mean().item(),
        }
        self.loads.clear()
        self.entropies.clear()
        return found


CHOICES = ("top_k_index", "router_indices")
"""Names of the parameter of transformers' experts with the chosen experts of each token, `(T, k)`."""
MOST_EXPERTS = 4096


def expert_modules(model: nn.Module) -> dict[int, nn.Module]:
    """The modules that compute with the experts chosen by a router, by layer number."""
    found = [(name, m) for name, m in model.named_modules() if _second_parameter(type(m)) in CHOICES]
    numbers = [[int(part) for part in name.split(".") if part.isdigit()] for name, _ in found]
    return {number[0] if number else i: m for i, (number, (_, m)) in enumerate(zip(numbers, found, strict=True))}


def _second_parameter(kind: type[nn.Module]) -> str:
    return [*inspect.signature(kind.forward).parameters, "", "", ""][2]


class ChosenExperts:
    """The experts that `model` chose for each token in its last forward pass, as one number per token."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = expert_modules(model)
        for module in self.modules.values():
            if not hasattr(module, "chosen_experts"):  # trainer and engine may share the model
                module.chosen_experts = None  # type: ignore[assignment]
                module.register_forward_pre_hook(_keep_choice)

    def __bool__(self) -> bool:
        return bool(self.modules)

    def fingerprints(self) -> Tensor:
        """`(T,)` int64: `expert_fingerprints` of each token."""
        return expert_fingerprints({layer: module.chosen_experts for layer, module in self.modules.items()})  # type: ignore[misc]


def expert_fingerprints(chosen: Mapping[int, Tensor]) -> Tensor:
    """`(T,)` int64, equal for two tokens if all layers chose the same experts for both, in any order.

    `chosen` maps each layer to `(T, k)`. This is Zobrist hashing: the sum of random numbers, one for each expert of
    each layer. The number of expert 0 is 0, so that a layer without experts, for which engines report zeros, adds
    nothing.
    """
    total: Any = 0
    for layer, experts in chosen.items():
        total = total + _numbers(layer, experts.device)[experts % MOST_EXPERTS].sum(-1)
    return total


def _keep_choice(module: nn.Module, args: tuple[Any, ...]) -> None:
    module.chosen_experts = args[1].detach()


@functools.cache
def _numbers(layer: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(layer)
    numbers = torch.randint(-(2**62), 2**62, (MOST_EXPERTS,), generator=generator)
    numbers[0] = 0
    return numbers.to(device)
