"""`open-r1 launch`: training on one node or many, generators included."""

import argparse
import math
import os
import sys
from typing import Any, NoReturn

from open_r1.engine.arguments import positive
from open_r1.errors import UserError

DESCRIPTION = """Trains on one node or many. The layout comes from the recipe: with `use_vllm` and `vllm_mode: server`
one GPU of a single node generates and the others train; of several nodes, the last one generates. Everything is
started, watched and ended together. Run the same command on every node; under Slurm that is `srun
--ntasks-per-node=1 open-r1 launch ...`, which needs neither --node-rank nor --head. Words after the recipe that are
not options of the launch go to the entry script."""
EXAMPLES = """examples:
  open-r1 launch --accelerator zero3 recipes/Qwen2.5-1.5B-Instruct/grpo/config_demo.yaml --learning_rate 2e-6
  open-r1 launch --nodes 2 --gpus-per-node 8 --dry-run recipes/Qwen2.5-Math-7B/grpo/config_simple_rl.yaml
  open-r1 launch --processes 2 recipes/SmolLM2-135M-Instruct/sft/config_demo.yaml     # on a CPU
"""


def main(argv: list[str]) -> None:
    """Exits with the status of the part that failed first. Raises UserError before anything is started."""
    options, recipe, overrides = parse(argv)
    from open_r1.launch.start import launch

    sys.exit(launch(options, recipe, overrides, os.environ))


def parse(argv: list[str]) -> tuple[argparse.Namespace, str, list[str]]:
    """The launch's own options, the recipe, and the words for the entry script."""
    parser = _parser()
    before = parser.parse_known_args(argv)[1]
    if not before:
        raise UserError("the recipe is missing: open-r1 launch recipes/<model>/<task>/config_<name>.yaml.")
    if before[0].split("=")[0] == "--config":  # as the entry scripts take it
        _, equals, value = before[0].partition("=")
        before = [value, *before[1:]] if equals else before[1:]
    if not before or before[0].startswith("-"):
        raise UserError(
            f"command line: {before[0] if before else '--config'} stands where the recipe should: open-r1 launch "
            "[options of the launch] recipe.yaml [options of the training]."
        )
    return parser.parse_known_args(argv)[0], before[0], before[1:]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see open-r1 launch --help).")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="open-r1 launch",
        usage="open-r1 launch [options] recipe.yaml [--key value ...]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def option(name: str, kind: Any, text: str, **more: Any) -> None:
        flags = sorted({f"--{name}", f"--{name.replace('-', '_')}"})
        metavar = "N" if kind in (positive, _whole, _port) else "X"
        parser.add_argument(*flags, type=kind, help=text, metavar=metavar, **more)

    option("nodes", positive, "nodes of the run (default: those of srun, else 1)")
    option("gpus-per-node", _whole, "GPUs of each node; 0: the CPU (default: those of this machine)")
    option("processes", positive, "training processes on each node (default: one for each GPU that trains)")
    option("accelerator", str, "one of recipes/accelerate_configs, or a file (default: ddp)", default="ddp")
    option("tp", positive, "GPUs that share one generator (default: as few as hold the model)")
    option("dp", positive, "generators (default: 1 on a single node; on several, as many as fill the last one)")
    option("gpu-memory", _amount, "GiB of a GPU (default: what the driver says, else 80)")
    option("node-rank", _whole, "which node this is, from 0 on (default: Slurm's)")
    option("head", str, "name or address of node 0 (default: Slurm's)")
    option("main-port", _port, "port of node 0 where processes meet; nodes meet on the next one")
    option("start-timeout", _amount, "seconds for all nodes to come (default: 300)", default=300.0)
    option("grace", _amount, "seconds that training has for a checkpoint after SIGTERM (default: 300)", default=300.0)
    option("server-command", str, "a generator other than this vLLM: a command with {model} {host} {port} {tp}")
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help="show the layout and all commands, only")
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 0")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 65_000:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a port from 1024 to 65000")
    return int(text)


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return number
