"""Private names of PyTorch."""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

from torch import Tensor


@contextmanager
def traced_once() -> Iterator[None]:
    """A context in which `torch.compile` traces a function once, for all sizes.

    `torch.fx.experimental._config.use_duck_shape`: by default, sizes that are equal at first share a symbol, so a
    number of rows that happens to equal the size of a head would become a constant. No public option changes that.
    """
    from torch.fx.experimental import _config

    symbols: Any = _config
    with symbols.patch(use_duck_shape=False), constant_floats():
        yield


def constant_floats() -> AbstractContextManager:
    """A context in which `torch.compile` makes floats, such as the epsilon of a norm, constants of the graph.

    `torch._dynamo.config.specialize_float`: by default, with `dynamic`, they are tensors on the CPU, which a
    checkpointed graph would store. Where the compiler needs constants after all, the function is traced a second time.
    No public option changes that.
    """
    from torch._dynamo import config

    dynamo: Any = config
    return dynamo.patch(specialize_float=True)


def is_tracing() -> bool:
    """Whether `torch.compile` is currently making a graph.

    `torch._guards.TracingContext`: the public `torch.compiler.is_compiling` is false before torch 2.12 while the
    backward pass is traced.
    """
    from torch._guards import TracingContext

    return TracingContext.try_get() is not None


def varlen_operation() -> Any:
    """The operation behind `torch.nn.attention.varlen.varlen_attn` (`torch.ops.torch_attn`)."""
    import torch.nn.attention.varlen  # registers it

    return torch.ops.torch_attn._varlen_attn.default


def options_without_size_guards() -> dict[str, Any]:
    """Options of `torch.compile` with which the size of a tensor decides nothing that would be compiled again.

    `torch._inductor.list_options`. By default, the compiler fuses the gradients of norms only from 4,096 rows on, and
    installs a guard for that: the first shorter pack, often the last one of a step, compiles a layer again.
    """
    from torch._inductor import list_options

    name = "triton.mix_order_reduction_non_strict_mode"
    return {name: True} if name in list_options() else {}


def mark_rows_dynamic(tensor: Tensor) -> None:
    """Makes `torch.compile` support any number of rows of `tensor` (`torch._dynamo.maybe_mark_dynamic`)."""
    from torch._dynamo import maybe_mark_dynamic

    maybe_mark_dynamic(tensor, 0)


def group_apart(store: Any, rank: int, size: int, backend: str, wait: timedelta, address: str) -> Any:
    """A process group of `nccl` or `gloo` that is independent of the default group; gloo uses the interface of
    `address`.

    `_timeout`, and gloo's `_Options` and `_devices`: public functions only make groups of members of the default one.
    """
    from torch import distributed as dist

    if backend == "nccl":
        nccl = dist.ProcessGroupNCCL.Options()
        nccl._timeout = wait
        return dist.ProcessGroupNCCL(store, rank, size, nccl)
    gloo: Any = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    gloo._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
    gloo._timeout = wait
    return dist.ProcessGroupGloo(store, rank, size, gloo)  # type: ignore[call-arg, arg-type]


def hurry_after_failure(seconds: float, requested: Collection[int]) -> None:
    """Makes torchrun's agent in this process kill the other processes `seconds` after one has failed, instead of 30
    seconds; but not if it ended with an exit status in `requested`.

    `SubprocessContext._close`, `subprocess_handlers`: no option of the agent applies after a failure.
    """
    from torch.distributed.elastic.multiprocessing.api import SubprocessContext

    close: Any = SubprocessContext._close

    def close_soon(self: Any, death_sig: Any, timeout: float = 30) -> None:
        codes = [handler.proc.poll() for handler in self.subprocess_handlers.values()]
        failed = any(code is not None and code not in requested for code in codes)
        close(self, death_sig, min(timeout, seconds) if failed else timeout)

    SubprocessContext._close = close_soon  # type: ignore[method-assign]
