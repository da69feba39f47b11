"""`open-r1 vllm-serve`: a vLLM server that a run with `vllm_mode: server` can write with and send weights to."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from open_r1.options import parse_known
from open_r1.options.annotations import Range

DESCRIPTION = """Serves a model with vLLM for `open-r1 grpo --use_vllm true --vllm_mode server`, on the GPUs that
CUDA_VISIBLE_DEVICES names. Whoever reaches the port can replace the weights: listen on loopback (the default) or on
the interface of a private network. Options that are not listed here go to `vllm serve` as they are.

    open-r1 vllm-serve --model Qwen/Qwen2.5-1.5B-Instruct --tensor-parallel-size 2
"""


@dataclass(kw_only=True)
class ServeOptions:
    """Model and server."""

    model: str
    """Hub id or local folder: the model that the run starts from."""
    revision: str | None = None
    """Its revision on the hub."""
    host: str = "127.0.0.1"
    """Interface to listen on."""
    port: Annotated[int, Range(at_least=1, at_most=65535)] = 8000
    """Port to listen on."""
    tensor_parallel_size: Annotated[int, Range(at_least=1)] = 1
    """GPUs that share the model."""
    dtype: str = "auto"
    """`auto`: the checkpoint's; float32 on a CPU."""
    max_model_len: Annotated[int | None, Range(at_least=1)] = None
    """Longest prompt with its completion, in tokens. Default: as much of the model's as fits."""
    max_num_seqs: Annotated[int, Range(at_least=1)] = 1024
    """Completions decoded at once."""
    gpu_memory_utilization: Annotated[float | None, Range(above=0, at_most=1)] = None
    """Share of the GPU's memory. Default: 0.9; on a CPU 0.4."""
    trust_remote_code: bool = False
    """Run the model's code."""
    enforce_eager: bool = False
    """No CUDA graphs: starts sooner."""


def main(argv: Sequence[str] | None = None) -> int:
    """Becomes the server."""
    argv = sys.argv[1:] if argv is None else argv
    (args,), extra = parse_known(
        argv, ServeOptions, prog="open-r1 vllm-serve", description=DESCRIPTION, usage="[options of vllm serve]"
    )

    import torch

    from open_r1.engine.vllm_engine import VLLMOptions, check_installed, engine_dtype
    from open_r1.engine.vllm_process import TORCHRUN
    from open_r1.engine.vllm_server_process import ServerOptions, server_environment, server_words

    check_installed()
    on_gpu = torch.cuda.is_available()
    dtype = engine_dtype(VLLMOptions(args.model, args.revision, args.trust_remote_code, args.dtype), on_gpu)
    options = ServerOptions(
        args.model,
        port=args.port,
        host=args.host,
        tensor_parallel=args.tensor_parallel_size,
        dtype=dtype,
        max_model_len=args.max_model_len,
        max_num_seqs=args.max_num_seqs,
        gpu_memory_utilization=args.gpu_memory_utilization or (0.9 if on_gpu else 0.4),
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        enforce_eager=args.enforce_eager,
    )
    words = server_words(options, on_gpu, extra)
    inherited = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
    sys.stdout.flush()
    os.execve(words[0], words, inherited | server_environment())
    return 0


if __name__ == "__main__":
    sys.exit(main())
