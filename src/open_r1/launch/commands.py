"""The command lines and environments of a layout, node by node."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1.configs import GRPOConfig, ModelConfig
from open_r1.engine.vllm.process import ServerOptions, server_environment, server_words
from open_r1.errors import UserError
from open_r1.launch.layout import Layout
from open_r1.launch.nodes import Place
from open_r1.launch.recipe import Recipe, distributed_type
from open_r1.training.backends import asking
from open_r1.training.model import weights_name


@dataclass(frozen=True)
class Command:
    """A command line, and the variables that it needs besides those of this process."""

    argv: tuple[str, ...]
    environment: dict[str, str]

    def __str__(self) -> str:
        return shlex.join([*(f"{name}={value}" for name, value in self.environment.items()), *self.argv])


def training_command(
    recipe: Recipe, layout: Layout, config: Path, place: Place, node: int, gpus: Sequence[str], servers: Sequence[str]
) -> Command:
    """`accelerate launch` on training node `node`; `gpus` are the names of the node's GPUs, `servers` are addresses
    of the generators."""
    words = [sys.executable, "-m", "open_r1.launch.accelerate_launch", "--config_file", str(config)]
    words += ["--num_machines", str(len(layout.train)), "--num_processes", str(layout.processes)]
    words += ["--machine_rank", str(node), "--main_process_ip", place.head]
    words += ["--main_process_port", str(layout.ports.main)]
    if layout.on_cpu:
        words += ["--mixed_precision", "no"]
    words += [str(Path(__file__).parents[1] / f"{recipe.task}.py"), "--config", str(recipe.path), *recipe.overrides]
    if servers:
        words += ["--vllm_server_base_url", ",".join(servers)]
    environment = asking(layout.processes, distributed_type(config))
    if not layout.on_cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[i] for i in layout.train[node])
    return Command(tuple(words), environment)


def server_command(
    model: ModelConfig, args: GRPOConfig, host: str, port: int, gpus: Sequence[str], template: str | None = None
) -> Command:
    """A generator that listens on `host` and shares `gpus` (their names; none: the CPU); `template` is a command line
    of the user's own, with {model}, {host}, {port} and {tp} in it."""
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
    """The arguments of a `--server-command`, with `fields` in place of the braces. Raises UserError if they cannot be
    read."""
    try:
        return [word.format(**fields) for word in shlex.split(template)]
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        names = ", ".join(f"{{{name}}}" for name in fields)
        raise UserError(
            f"--server-command {template!r} cannot be read ({error}): {names} can stand in it, a brace as two of them, "
            "and quotes in pairs."
        ) from error
