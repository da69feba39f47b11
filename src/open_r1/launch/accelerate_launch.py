"""`python -m open_r1.launch.accelerate_launch ...`: `accelerate launch ...` with the exit status of the process that
failed first. Accelerate itself exits with 1 and prints a stack trace.

After a failure the other processes have `SURVIVOR_SECONDS` to end. Over gloo they lose the connection and end by
themselves; over NCCL they wait on the GPU for the one that failed, and no signal reaches them but SIGKILL.
"""

import logging
import os
import signal
import subprocess
import sys

from open_r1.errors import LOST_PEER, Interrupted
from open_r1.internals.torch import hurry_after_failure
from open_r1.processes.child import describe_exit

SURVIVOR_SECONDS = 5
"""Seconds between SIGTERM and SIGKILL for the processes that are left when another has failed. torch's agent waits 30
seconds, and still does after a process that stopped on request."""


def main(argv: list[str]) -> int:
    """Exit status: 0, or that of the process that failed first (128 plus the signal's number if it was killed)."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # this module reports the failure
    # Schedulers send SIGTERM to every process. The training processes then save a checkpoint and end by themselves;
    # torch's agent would kill them after 30 seconds.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGINT,SIGHUP,SIGQUIT"
    hurry_after_failure(SURVIVOR_SECONDS, requested=(0, Interrupted.EXIT_CODE, 128 + signal.SIGINT))
    try:
        launch_command(launch_command_parser().parse_args(argv))
    except ChildFailedError as error:
        # torch dates failures to the second. A process that lost the connection to another, or that NCCL aborted for
        # this reason, is not the first.
        later = {LOST_PEER: 2, -signal.SIGABRT: 1}
        failures = error.failures.items()
        rank, failure = min(failures, key=lambda item: (later.get(item[1].exitcode, 0), item[1].timestamp))
        return _report(f"training process {rank}", failure.exitcode)
    except subprocess.CalledProcessError as error:  # a single process has no agent
        return _report("the training process", error.returncode)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _report(process: str, code: int) -> int:
    status = code if code >= 0 else 128 - code
    print(f"{process} ended with {describe_exit(status)}.", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
