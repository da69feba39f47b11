"""The options of `open-r1 launch`."""

from dataclasses import dataclass
from typing import Annotated

from open_r1.errors import UserError
from open_r1.options import parse_known
from open_r1.options.annotations import Range

DESCRIPTION = """Trains on one node or many. The layout comes from the recipe: with `use_vllm` and `vllm_mode: server`
one GPU of a single node generates and the others train; of several nodes, the last one generates. Everything is
started, watched and ended together. Run the same command on every node; under Slurm that is `srun
--ntasks-per-node=1 open-r1 launch ...`, which needs neither --node-rank nor --head. Words after the recipe that are
not options of the launch go to the entry script.

    open-r1 launch --accelerator zero3 recipes/Qwen2.5-1.5B-Instruct/grpo/config_demo.yaml --learning_rate 2e-6
    open-r1 launch --nodes 2 --gpus-per-node 8 --dry-run recipes/Qwen2.5-Math-7B/grpo/config_simple_rl.yaml
    open-r1 launch --processes 2 recipes/SmolLM2-135M-Instruct/sft/config_demo.yaml     # on a CPU
"""


@dataclass
class LaunchOptions:
    """Layout."""

    nodes: Annotated[int | None, Range(at_least=1)] = None
    """Nodes of the run. Default: those of srun, else 1."""
    gpus_per_node: Annotated[int | None, Range(at_least=0)] = None
    """GPUs of each node; 0: the CPU. Default: those of this machine."""
    processes: Annotated[int | None, Range(at_least=1)] = None
    """Training processes on each node. Default: one for each GPU that trains."""
    accelerator: str = "ddp"
    """One of recipes/accelerate_configs, or a file."""
    tp: Annotated[int | None, Range(at_least=1)] = None
    """GPUs that share one generator. Default: as few as hold the model."""
    dp: Annotated[int | None, Range(at_least=1)] = None
    """Generators. Default: 1 on a single node; on several, as many as fill the last one."""
    gpu_memory: Annotated[float | None, Range(above=0)] = None
    """GiB of a GPU. Default: what the driver says, else 80."""
    node_rank: Annotated[int | None, Range(at_least=0)] = None
    """Which node this is, from 0 on. Default: Slurm's."""
    head: str | None = None
    """Name or address of node 0. Default: Slurm's."""
    main_port: Annotated[int | None, Range(at_least=1024, at_most=65000)] = None
    """Port of node 0 where processes meet; nodes meet on the next one."""
    start_timeout: Annotated[float, Range(above=0)] = 300.0
    """Seconds for all nodes to come."""
    grace: Annotated[float, Range(above=0)] = 300.0
    """Seconds that training has for a checkpoint after SIGTERM."""
    server_command: str | None = None
    """A generator other than this vLLM: a command with {model} {host} {port} {tp}."""
    dry_run: bool = False
    """Show the layout and all commands, only."""


def parse(argv: list[str]) -> tuple[LaunchOptions, str, list[str]]:
    """The launch's own options, the recipe, and the words for the entry script."""
    (options,), rest = parse_known(
        argv, LaunchOptions, prog="open-r1 launch", description=DESCRIPTION, usage="RECIPE.yaml [options of the recipe]"
    )
    if not rest:
        raise UserError("the recipe is missing: open-r1 launch recipes/<model>/<task>/config_<name>.yaml.")
    if rest[0].split("=")[0] == "--config":  # as the entry scripts take it
        _, equals, value = rest[0].partition("=")
        rest = [value, *rest[1:]] if equals else rest[1:]
    if not rest or rest[0].startswith("-"):
        raise UserError(
            f"command line: {rest[0] if rest else '--config'} stands where the recipe should: open-r1 launch "
            "[options of the launch] recipe.yaml [options of the training]."
        )
    return options, rest[0], rest[1:]
