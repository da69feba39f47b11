"""`open-r1 vllm-serve`: a vLLM server that samples completions for a run with `vllm_mode: server`."""

import os
import sys
from collections.abc import Sequence

from open_r1.engine.vllm.installed import check_installed
from open_r1.engine.vllm.process import ServerOptions, server_environment, server_words
from open_r1.options import parse_known
from open_r1.processes.child import child_environment

DESCRIPTION = """Serves a model with vLLM for `open-r1 grpo --use_vllm true --vllm_mode server`, on the GPUs in
CUDA_VISIBLE_DEVICES. Anyone who can reach the port can replace the weights, so listen on loopback (the default) or on
the interface of a private network. Options that are not listed here are passed to `vllm serve`.

    open-r1 vllm-serve --model Qwen/Qwen2.5-1.5B-Instruct --tensor-parallel-size 2
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Replaces this process by the server."""
    argv = sys.argv[1:] if argv is None else argv
    (options,), extra = parse_known(
        argv, ServerOptions, prog="open-r1 vllm-serve", description=DESCRIPTION, usage="[options of vllm serve]"
    )

    import torch

    check_installed()
    words = server_words(options, torch.cuda.is_available(), extra)
    sys.stdout.flush()
    os.execve(words[0], words, child_environment() | server_environment())
    return 0


if __name__ == "__main__":
    sys.exit(main())
