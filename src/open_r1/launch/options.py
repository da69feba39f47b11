"""The options of `open-r1 launch`."""

from dataclasses import dataclass
from typing import Annotated

from open_r1.errors import UserError
from open_r1.options import parse_known
from open_r1.options.annotations import Range

DESCRIPTION = """Trains on one node or several. The recipe decides the layout: with `use_vllm` and `vllm_mode: server`,
one GPU of a single node generates and the others train; with several nodes, the last node generates. All processes
start and stop together. Run the same command on every node. Under Slurm, use `srun --ntasks-per-node=1 open-r1
launch ...`, which needs neither --node-rank nor --head. Options after the recipe go to the entry script, unless they
are listed here.

    open-r1 launch --accelerator zero3 recipes/Qwen2.5-1.5B-Instruct/grpo/config_demo.yaml --learning_rate 2e-6
    open-r1 launch --nodes 2 --gpus-per-node 8 --dry-run recipes/Qwen2.5-Math-7B/grpo/config_simple_rl.yaml
    open-r1 launch --processes 2 recipes/SmolLM2-135M-Instruct/sft/config_demo.yaml     # on a CPU
"""


@dataclass
class LaunchOptions:
    """Layout."""

    nodes: Annotated[int | None, Range(at_least=1)] = None
    """Number of nodes. Default: that of srun, else 1."""
    gpus_per_node: Annotated[int | None, Range(at_least=0)] = None
    """GPUs per node; 0: the CPU. Default: as many as this machine has."""
    processes: Annotated[int | None, Range(at_least=1)] = None
    """Training processes per node. Default: one per training GPU."""
    accelerator: str = "ddp"
    """Name of a file in recipes/accelerate_configs, or a path."""
    tp: Annotated[int | None, Range(at_least=1)] = None
    """GPUs per generator. Default: the smallest number that holds the model."""
    dp: Annotated[int | None, Range(at_least=1)] = None
    """Number of generators. Default: 1 on a single node; with several nodes, as many as fill the last one."""
    gpu_memory: Annotated[float | None, Range(above=0)] = None
    """Memory per GPU in GiB. Default: what the driver reports, else 80."""
    node_rank: Annotated[int | None, Range(at_least=0)] = None
    """Rank of this node, starting at 0. Default: Slurm's."""
    head: str | None = None
    """Name or address of node 0. Default: Slurm's."""
    main_port: Annotated[int | None, Range(at_least=1024, at_most=65000)] = None
    """Port of node 0 where processes meet. Nodes meet on the next port."""
    start_timeout: Annotated[float, Range(above=0)] = 300.0
    """Seconds to wait for all nodes to join."""
    grace: Annotated[float, Range(above=0)] = 300.0
    """Seconds that training gets to save a checkpoint after SIGTERM."""
    server_command: str | None = None
    """Start generators with this command instead of vLLM; {model}, {host}, {port} and {tp} are filled in."""
    dry_run: bool = False
    """Only show the layout and all commands."""


def parse(argv: list[str]) -> tuple[LaunchOptions, str, list[str]]:
    """The launch's own options, the recipe, and the arguments of the entry script."""
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
            f"command line: expected a recipe instead of {rest[0] if rest else '--config'}: open-r1 launch "
            "[options of the launch] recipe.yaml [options of the training]."
        )
    return options, rest[0], rest[1:]
