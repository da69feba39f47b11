"""One node's share of a server: becomes its command or, with Ray, runs its part of the cluster."""

import os
from collections.abc import Mapping, Sequence

from open_r1.engine.vllm.installed import sampler_variables
from open_r1.launch.nodes import find_place
from open_r1.launch.slurm.job import current_job
from open_r1.launch.slurm.ray_node import RayNode
from open_r1.launch.slurm.server import ServerPlan, server_command, vllm_programs


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status with Ray; otherwise does not return. The only word is a `ServerPlan` as JSON."""
    plan = ServerPlan.from_json(words[0])
    job, place = current_job(environment), find_place(None, None, None, environment)
    path = f"{vllm_programs(environment)}{os.pathsep}{environment.get('PATH', '')}"
    environment = {**sampler_variables(), **environment, "PATH": path}
    if not plan.options.ray or place.nodes == 1:
        command = server_command(plan, job, place.rank, place.head)
        os.execvpe(command[0], command, environment)
    return RayNode(plan, job, place).run(environment)
