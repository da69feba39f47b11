"""Finds the Piston workers that slurm/piston/launch_piston_workers.sh submitted."""

import re
import subprocess

from open_r1.errors import UserError

SQUEUE = ["squeue", "--me", "--states=RUNNING", "--noheader", "--format=%j %N"]
_WORKER = re.compile(r"piston-worker-(\d+) (\S+)")


def slurm_endpoints() -> list[str]:
    """URLs of the running workers. Raises `UserError` if Slurm does not answer or no worker is running."""
    try:
        done = subprocess.run(SQUEUE, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"PISTON_ENDPOINTS is 'slurm', but squeue does not answer ({error}).") from error
    found = [match.groups() for line in done.stdout.splitlines() if (match := _WORKER.fullmatch(line.strip()))]
    if not found:
        raise UserError(
            "PISTON_ENDPOINTS is 'slurm', but no job named piston-worker-<port> is running: start workers with "
            "slurm/piston/launch_piston_workers.sh."
        )
    return [f"http://{node}:{port}/api/v2" for port, node in found]
