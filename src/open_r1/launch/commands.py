"""The command line and environment of training on a node."""

import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1.launch.layout import Layout
from open_r1.launch.nodes import Place
from open_r1.launch.recipe import Recipe, distributed_type
from open_r1.processes.child import Command
from open_r1.training.backends import requested_backend


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
    environment = requested_backend(layout.processes, distributed_type(config))
    if not layout.on_cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[i] for i in layout.train[node])
    return Command(tuple(words), environment)
