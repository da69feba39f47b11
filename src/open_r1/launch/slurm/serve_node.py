"""One node's share of a server: becomes its command."""

import json
import os
from collections.abc import Mapping, Sequence

from open_r1.engine.vllm_process import sampler_variables
from open_r1.launch.nodes import find_place
from open_r1.launch.slurm.job import current_job
from open_r1.launch.slurm.server import ServerPlan, server_command, vllm_programs


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Does not return. The only word is a `ServerPlan` as JSON."""
    plan = ServerPlan(**json.loads(words[0]))
    place = find_place(None, None, None, environment)
    command = server_command(plan, current_job(environment), place.rank, place.head)
    path = f"{vllm_programs(environment)}{os.pathsep}{environment.get('PATH', '')}"  # `ray symmetric-run` calls ray
    os.execvpe(command[0], command, {**sampler_variables(), **environment, "PATH": path})
