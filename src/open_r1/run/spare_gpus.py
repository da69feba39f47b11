"""`vllm_mode: server` without `open-r1 launch`: generators on the GPUs that `accelerate launch` leaves over.

    accelerate launch --config_file recipes/accelerate_configs/zero2.yaml --num_processes=7 src/open_r1/grpo.py ...

on a node of eight starts vLLM on the eighth GPU, and stops it when the first training process ends, however it ends.
"""

import atexit
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from open_r1.configs import GRPOConfig, ModelConfig
from open_r1.engine.devices import visible_devices
from open_r1.errors import UserError
from open_r1.launch.commands import server_command
from open_r1.launch.generators import Generator, answers, wait_until_answering
from open_r1.launch.layout import tensor_parallel
from open_r1.launch.nodes import gpu_memory, port_is_free
from open_r1.launch.recipe import model_size
from open_r1.run.first_process import by_first_process

LOOPBACK = ("127.0.0.1", "localhost", "0.0.0.0", "::1")


def server_urls(args: GRPOConfig, model: ModelConfig, template: str | None = None) -> str:
    """Addresses of the generators, with commas between: those that the options name or that answer already, else of
    generators that this starts. Collective: the first process does it, and tells the others.

    Raises UserError, in all processes, if no GPU is left over, or if a generator does not come up.
    """
    named = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
    if args.vllm_server_base_url or args.vllm_server_host not in LOOPBACK:
        return named

    def urls() -> str:
        return named if answers(named) else ",".join(start_generators(args, model, template))

    return by_first_process(args.process_index, urls)


def start_generators(args: GRPOConfig, model: ModelConfig, template: str | None = None) -> list[str]:
    """Starts generators on all GPUs that no training process of this node has (on a CPU: one), waits until they
    answer, and returns their addresses. They end with this process."""
    training = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = leftover_gpus(visible_devices(), training)
    parameters, heads = model_size(model)
    size = tensor_parallel(parameters, heads, len(gpus), gpu_memory() or 80 * 2**30) if gpus and parameters else 1
    groups = [gpus[i : i + size] for i in range(0, len(gpus) - size + 1, size)] or [()]
    servers = []
    for i, group in enumerate(groups):
        port = args.vllm_server_port + i
        if not port_is_free(port):
            raise UserError(f"port {port} (a generator) is in use, and no vLLM answers there: give vllm_server_port.")
        command = server_command(model, args, "127.0.0.1", port, group, template)
        name = f"vLLM on GPU {','.join(group)}" if group else "vLLM on the CPU"
        log = Path(args.output_dir or ".") / "run" / "vllm" / f"server-{port}.log"
        servers.append(Generator(name, command, f"http://127.0.0.1:{port}", log))
    with ExitStack() as started:
        parts = [started.enter_context(server.start()) for server in servers]
        for _ in wait_until_answering(servers, args.vllm_server_timeout):
            if dead := next((part for part in parts if part.poll() is not None), None):
                failure = dead.failure("")
                last = "".join(failure.last_lines[-1:])
                raise UserError(f"{dead.name} {failure.reason}; its log is {dead.log}. Its last line: {last}")
        atexit.register(started.pop_all().close)
    return [server.url for server in servers]


def leftover_gpus(visible: Sequence[str], training: int) -> tuple[str, ...]:
    """GPUs behind those of the training processes; none where there are no GPUs. Raises UserError if all train."""
    if visible and len(visible) <= training:
        raise UserError(
            f"vLLM is to write (vllm_mode server, or engine vllm) and all {len(visible)} GPUs train, so none is left: "
            f"start fewer processes (accelerate launch --num_processes={len(visible) - 1}), name a server "
            "(vllm_server_base_url), or set engine to auto and vllm_mode to colocate, which need no vLLM."
        )
    return tuple(visible[training:])
