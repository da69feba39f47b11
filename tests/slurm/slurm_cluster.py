"""A real Slurm on this one host, which acts as two nodes: munged, slurmctld and two slurmd in a temporary folder.

`cred_expire` is the lowest value that Slurm accepts. A requeued job waits one second longer than that (by default two
minutes) before it starts again, because nodes reject a credential made in the second in which the job's previous one
was revoked. Do not cut the pause short with `StartTime=now`: Slurm then kills the job ("Job credential revoked").
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from patience import PATIENCE

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

CONFIGURATION = """
ClusterName=one_host
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=1,sched_interval=2,sched_min_interval=0
KillWait=30
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=4096
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=4096
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=120 MaxTime=INFINITE State=UP
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


def lacking() -> list[str]:
    """What this host lacks to run Slurm."""
    paths = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=paths) is None]


class Cluster:
    """Two nodes, n1 and n2, and two partitions: jobs of `high` preempt those of `low`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "OPEN_R1"))}
        self.environment |= {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        self.daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        """Starts everything and waits for both nodes."""
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir()
        text = CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=self.folder, ports=_free_ports(3))
        (self.folder / "slurm.conf").write_text(text)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        places = [f"--{kind}-file={self.folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *places)
        _until(lambda: (self.folder / "munge.socket").exists(), "munged does not come up")
        self._daemon("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._daemon("slurmd", "-D", "-N", node)
        _until(lambda: self.idle_nodes() == 2, "the two nodes do not come up")

    def stop(self) -> None:
        """Cancels all jobs and ends the daemons."""
        subprocess.run(["scancel", "--user=root"], env=self.environment, check=False)
        try:
            _until(lambda: not self.run("squeue", "--noheader"), "jobs are left")
        finally:
            for daemon in reversed(self.daemons):
                daemon.terminate()
            for daemon in self.daemons:
                try:
                    daemon.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    daemon.kill()

    def run(self, *words: str, cwd: Path | None = None, **environment: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            words, env=self.environment | environment, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, *words: str, cwd: Path, **environment: str) -> str:
        """The number of a new job."""
        return self.run("sbatch", "--parsable", *words, cwd=cwd, **environment)

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` knows of it."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str) -> str:
        """The state in which the job ends."""
        _until(lambda: self.job(number)["JobState"] in ENDED, f"job {number} does not end")
        return self.job(number)["JobState"]

    def log(self, number: str) -> str:
        """The job's log file."""
        path = Path(self.job(number)["StdOut"])
        return path.read_text(errors="replace") if path.exists() else ""

    def idle_nodes(self) -> int:
        """Nodes that can take a job."""
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=low", "--states=idle", "--format=%N"],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        return len(done.stdout.split())

    def _daemon(self, *words: str) -> None:
        log = (self.folder / f"{words[0]}-{len(self.daemons)}.out").open("wb")
        self.daemons.append(
            subprocess.Popen(words, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        )


def stop_by_scancel(cluster: Cluster, job: str) -> None:
    """What `--signal=USR1@300` does before the time limit."""
    cluster.run("scancel", "--signal=USR1", job)


def stop_by_preemption(cluster: Cluster, job: str) -> None:
    """A job of more priority needs the nodes."""
    cluster.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 1", cwd=cluster.folder)


def wait_until(condition: Callable[[], object], explain: Callable[[], object]) -> None:
    """Fails with what `explain` returns if the condition does not hold in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.3)


def processes(job: str, program: str = "", node: str = "") -> list[int]:
    """Processes that the job has started, by the variables that Slurm gave them; `program` is the file that runs."""
    wanted = [f"SLURM_JOB_ID={job}", *([f"SLURMD_NODENAME={node}"] if node else [])]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            runs = not program or (entry / "exe").readlink().name == program
            if runs and set(wanted) <= set((entry / "environ").read_text().split("\0")):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _until(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, lambda: f"{what} within {PATIENCE} s")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
