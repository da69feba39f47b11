"""Generators: vLLM servers that sample a training run's completions.

`open-r1 launch` starts them on GPUs and nodes of its layout. Without it, `vllm_mode: server` starts them here, on the
GPUs that `accelerate launch` leaves over:

    accelerate launch --config_file recipes/accelerate_configs/zero2.yaml --num_processes=7 src/open_r1/grpo.py ...

on a node of eight starts vLLM on the eighth GPU, and stops it when the first training process ends, however it ends.
"""

import atexit
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from open_r1.configs import GRPOConfig, ModelConfig
from open_r1.devices import gpu_memory, visible_devices
from open_r1.engine.vllm.addresses import port_is_free
from open_r1.engine.vllm.process import (
    ServerCommand,
    ServerOptions,
    is_up,
    server_environment,
    server_words,
    start_servers,
)
from open_r1.errors import UserError
from open_r1.processes.child import Command, stop_all
from open_r1.run.first_process import by_first_process
from open_r1.run.model_size import model_size, tensor_parallel
from open_r1.training.model import weights_name

LOOPBACK = ("127.0.0.1", "localhost", "0.0.0.0", "::1")
TIMEOUT_OPTION = "vllm_server_timeout"


def generator_command(
    model: ModelConfig, args: GRPOConfig, host: str, port: int, gpus: Sequence[str], template: str | None = None
) -> Command:
    """A generator that listens on `host` and uses `gpus` (their names; none: the CPU). `template` is a user's command
    line with {model}, {host}, {port} and {tp}."""
    name, size = weights_name(model), max(1, len(gpus))
    if template is not None:
        words = fill_template(template, model=name, host=host, port=port, tp=size)
    else:
        options = ServerOptions(
            model=name,
            port=port,
            host=host,
            tensor_parallel_size=size,
            dtype="bfloat16" if args.bf16 else "auto",
            max_model_len=args.vllm_max_model_length,
            revision=model.model_revision,
            trust_remote_code=model.trust_remote_code,
            enforce_eager=args.vllm_enforce_eager,
        )
        words = server_words(options, on_gpu=bool(gpus))
    return Command(tuple(words), server_environment(gpus or None))


def fill_template(template: str, **fields: object) -> list[str]:
    """The words of a `--server-command`, with `fields` in place of the braces. Raises `UserError`."""
    try:
        return [word.format(**fields) for word in shlex.split(template)]
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        names = ", ".join(f"{{{name}}}" for name in fields)
        raise UserError(
            f"--server-command {template!r} cannot be read ({error}): it may contain {names}; double other braces, "
            "and close all quotes."
        ) from error


def server_urls(args: GRPOConfig, model: ModelConfig, template: str | None = None) -> str:
    """Addresses of the generators, separated by commas: those in the options or those that already answer, otherwise
    those of generators that are started here. Collective: the first process does this for all.

    Raises UserError, in all processes, if no GPU is unused, or if a generator does not start.
    """
    named = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
    if args.vllm_server_base_url or args.vllm_server_host not in LOOPBACK:
        return named

    def urls() -> str:
        return named if is_up(named) else ",".join(start_generators(args, model, template))

    return by_first_process(args.process_index, urls)


def start_generators(args: GRPOConfig, model: ModelConfig, template: str | None = None) -> list[str]:
    """Starts generators on all GPUs that no training process of this node uses (on a CPU: one), waits until they
    answer, and returns their addresses. They end with this process."""
    gpus = spare_gpus(visible_devices(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    parameters, heads = model_size(model)
    size = tensor_parallel(parameters, heads, len(gpus), gpu_memory() or 80 * 2**30) if gpus and parameters else 1
    commands = []
    for i, group in enumerate([gpus[i : i + size] for i in range(0, len(gpus) - size + 1, size)] or [()]):
        port = args.vllm_server_port + i
        if not port_is_free(port):
            raise UserError(f"port {port} (a generator) is in use, and no vLLM answers there: give vllm_server_port.")
        name = f"vLLM on GPU {','.join(group)}" if group else "vLLM on the CPU"
        command = generator_command(model, args, "127.0.0.1", port, group, template)
        log = Path(args.output_dir or ".") / "run" / "vllm" / f"server-{port}.log"
        commands.append(ServerCommand(name, command, f"http://127.0.0.1:{port}", log))
        print(f"{name}: starting; its log is {log}.", flush=True)
    servers = start_servers(commands, args.vllm_server_timeout, say, TIMEOUT_OPTION)
    atexit.register(stop_all, servers)
    return [server.url for server in servers]


def spare_gpus(visible: Sequence[str], training: int) -> tuple[str, ...]:
    """The GPUs after those of the training processes; empty if there are no GPUs. Raises `UserError` if all train."""
    if visible and len(visible) <= training:
        raise UserError(
            f"vLLM needs a GPU (vllm_mode server, or engine vllm), but all {len(visible)} GPUs train: start fewer "
            f"processes (accelerate launch --num_processes={len(visible) - 1}), set vllm_server_base_url to a "
            "running server, or set engine to auto and vllm_mode to colocate, which need no vLLM."
        )
    return tuple(visible[training:])


def say(text: str) -> None:
    """Prints a line without buffering."""
    print(text, flush=True)
