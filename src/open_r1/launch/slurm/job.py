"""The current Slurm job: its nodes, its steps, and how it resumes."""

import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1.errors import Interrupted, UserError

CONTINUED = (Interrupted.EXIT_CODE, 128 + signal.SIGUSR1, 128 + signal.SIGTERM)
"""Exit statuses of a step that stopped on request: with a checkpoint, or at once where rows are saved as they
finish."""
STRAGGLE_SECONDS = 60
"""How long the other tasks of a step may run after the first has ended."""
CONTROLLER_TRIES = 12
CONTROLLER_PAUSE_SECONDS = 5.0
"""Between tries to reach Slurm's controller, which can be busy or restarting just when a job wants to requeue."""


@dataclass(frozen=True)
class Job:
    """A running job, seen from its batch script."""

    number: str
    name: str
    nodes: int
    gpus_per_node: int
    restarts: int = 0

    def log(self, what: str) -> Path:
        """A log file next to the job's own."""
        return Path("logs") / f"{self.name}-{self.number}-{what}.out"


def current_job(environment: Mapping[str, str]) -> Job:
    """From Slurm's variables. Raises UserError outside of a job, or in one that lacks the site's GPUs."""
    if "SLURM_JOB_ID" not in environment:
        raise UserError("this is not a Slurm job: submit the script with sbatch.")
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    requests = [name for name in ("SBATCH_GPUS_PER_NODE", "SBATCH_GRES", "SBATCH_GPUS") if environment.get(name)]
    if requests and not gpus:
        raise UserError(
            f"slurm/site.env sets {requests[0]}={environment[requests[0]]}, but this job has no GPU: run `source "
            "slurm/site.env` in the shell before sbatch, or give sbatch --gpus-per-node."
        )
    return Job(
        number=environment["SLURM_JOB_ID"],
        name=environment.get("SLURM_JOB_NAME", "open_r1"),
        nodes=int(environment.get("SLURM_JOB_NUM_NODES", "1")),
        gpus_per_node=int(gpus) if gpus.isdigit() else 0,
        restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
    )


def step(command: Sequence[str], nodes: int, *, overlap: bool = False) -> list[str]:
    """`srun` of a command, once on each of the first `nodes` nodes, with all of their cores and GPUs.

    `overlap`: another step runs there at the same time. No task ends the others when it fails: they would be killed
    before their own exit statuses are known.
    """
    words = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--cpu-bind=none"]
    words += ["--kill-on-bad-exit=0", f"--wait={STRAGGLE_SECONDS}"]
    return [*words, *(["--overlap"] if overlap else []), *command]


def run_step(words: Sequence[str]) -> int:
    """Runs a step to its end; the largest exit status of its tasks."""
    print(f"+ {shlex.join(words)}", flush=True)
    code = subprocess.run(words, stdin=subprocess.DEVNULL).returncode
    return code if code >= 0 else 128 - code


def finish(status: int, job: Job) -> int:
    """The exit status of the job. A job whose step stopped on request is requeued and will continue, unless the
    job was canceled."""
    if status not in CONTINUED:
        print("Done." if status == 0 else f"error: the job failed with exit status {status}.", flush=True)
        return status
    for _ in range(CONTROLLER_TRIES):
        shown = _scontrol("--oneliner", "show", "job", job.number)
        if shown.returncode == 0 and "JobState=RUNNING" not in shown.stdout.split():
            return status
        answer = _scontrol("requeue", job.number) if shown.returncode == 0 else shown
        if answer.returncode == 0:
            print(f"Stopped. Job {job.number} is in the queue again and will continue.", flush=True)
            return 0
        if "Requeue=0" in shown.stdout.split():
            break
        time.sleep(CONTROLLER_PAUSE_SECONDS)
    reason = answer.stderr.strip().replace("\n", "; ")
    print(
        f"Stopped, but Slurm did not put job {job.number} back into the queue ({reason}). Submit the same command "
        "again to continue.",
        flush=True,
    )
    return status


def _scontrol(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
