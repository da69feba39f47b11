"""`open-r1 vllm-serve`: a vLLM server that a run with `vllm_mode: server` can write with and send weights to."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from open_r1.engine.arguments import positive, share
from open_r1.engine.vllm_process import TORCHRUN
from open_r1.engine.vllm_server_process import ServerOptions, server_environment, server_words

DESCRIPTION = """Serves a model with vLLM for `open-r1 grpo --use_vllm true --vllm_mode server`, on the GPUs that
CUDA_VISIBLE_DEVICES names. Whoever reaches the port can replace the weights: listen on loopback (the default) or on
the interface of a private network. Options that are not listed here go to `vllm serve` as they are."""


def main(argv: Sequence[str] | None = None) -> int:
    """Becomes the server."""
    defaults = ServerOptions("")
    parser = argparse.ArgumentParser("open-r1 vllm-serve", description=DESCRIPTION)

    def option(name: str, kind: Any, text: str, **more: Any) -> None:
        flags = dict.fromkeys([f"--{name}", f"--{name.replace('-', '_')}"])
        parser.add_argument(*flags, type=kind, help=text, metavar="X" if kind is str else "N", **more)

    option("model", str, "hub id or local folder: the model that the run starts from", required=True)
    option("revision", str, "its revision on the hub")
    option("host", str, f"interface to listen on (default: {defaults.host})", default=defaults.host)
    option("port", int, f"default: {defaults.port}", default=defaults.port)
    option("tensor-parallel-size", positive, "GPUs that share the model (default: 1)", default=1)
    option("dtype", str, "data type (default: auto: the checkpoint's; float32 on a CPU)", default="auto")
    option(
        "max-model-len",
        positive,
        "longest prompt with its completion, in tokens (default: as much of the model's as fits)",
    )
    option("max-num-seqs", positive, f"completions decoded at once (default: {defaults.max_num_seqs})", default=1024)
    option("gpu-memory-utilization", share, "share of the GPU's memory (default: 0.9; CPU: 0.4)")
    parser.add_argument("--trust-remote-code", "--trust_remote_code", action="store_true", help="run the model's code")
    parser.add_argument("--enforce-eager", "--enforce_eager", action="store_true", help="no CUDA graphs: starts sooner")
    args, extra = parser.parse_known_args(argv)

    import torch

    from open_r1.engine.vllm_engine import VLLMOptions, check_installed, engine_dtype

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
