"""A vLLM server on the nodes of the job: its options, its Slurm step, and whether it completes prompts."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from open_r1.engine.openai_engine import OpenAIEngine
from open_r1.engine.protocol import Message, Request, Sampling
from open_r1.engine.vllm.addresses import free_port
from open_r1.engine.vllm.process import ServerCommand, wait_until_up
from open_r1.errors import Interrupted, UserError
from open_r1.launch.nodes import address_of, host_names
from open_r1.launch.slurm.arguments import shell_words
from open_r1.launch.slurm.job import CONTINUED, Job, step
from open_r1.options.annotations import Range
from open_r1.processes.child import ChildProcess, Command
from open_r1.run.generators import fill_template, say

FIRST_PORT = 31_000
"""Ports of a server are counted up from here by the number of its job: above those of `open-r1 launch`, below those
that systems give out by themselves."""
DASHBOARD_PORT = 8265
"""Ray's own default; the next free one where another job on the node has taken it."""


@dataclass(kw_only=True)
class ServerJobOptions:
    """Model and server."""

    model: str
    """Hub id or folder."""
    tp: Annotated[int | None, Range(at_least=1)] = None
    """GPUs that share each layer, across nodes if necessary. Default: the GPUs of a node divided by --dp."""
    pp: Annotated[int | None, Range(at_least=1)] = None
    """Pipeline stages. Default: one per node, or as many as --tp and --dp leave GPUs for."""
    dp: Annotated[int, Range(at_least=1)] = 1
    """Copies of the model."""
    port: int | None = None
    """Port of the server. Default: derived from the number of the job."""
    server_timeout: float = 3600.0
    """Seconds until the server must answer."""
    server_command: str | None = None
    """Start this command instead of vLLM; {model}, {host}, {port} and {tp} are filled in."""
    server_args: str = ""
    """More options of `vllm serve`, in one string."""
    ray: bool = False
    """Connect several nodes through Ray instead of vLLM's own launcher."""

    def __post_init__(self) -> None:
        if self.server_command and (self.ray or self.server_args):
            raise UserError("--server-command replaces vLLM, so --ray and --server-args have no effect: omit them.")

    def plan(self, extra: Sequence[str] = ()) -> "ServerPlan":
        """What each node has to know; `extra`: further options of `vllm serve`."""
        return ServerPlan(self, (*shell_words(self.server_args), *extra))


@dataclass(frozen=True)
class ServerPlan:
    """A server of `options`, with further `words` for `vllm serve`, as every node of the job starts its share of it."""

    options: ServerJobOptions
    words: tuple[str, ...] = ()
    dashboard: int | None = None
    """The port of Ray's dashboard on the first node."""

    @property
    def model(self) -> str:
        return self.options.model

    @classmethod
    def from_json(cls, text: str) -> "ServerPlan":
        """What `json.dumps(asdict(plan))` wrote."""
        fields = json.loads(text)
        return cls(ServerJobOptions(**fields.pop("options")), **fields)


def server_command(plan: ServerPlan, job: Job, node: int, head: str) -> list[str]:
    """The command for one node (with Ray, for the first node only); `head` is the address of the first node."""
    port, (tp, pp) = server_port(plan, job), parallel_sizes(plan, job)
    if plan.options.server_command is not None:
        return fill_template(plan.options.server_command, model=plan.model, host="0.0.0.0", port=port, tp=tp)
    programs = vllm_programs(os.environ)
    entry = ["vllm.entrypoints.cli.main", "serve"]
    if job.gpus_per_node == 0 and job.nodes == 1:  # the package for CPUs lacks what `vllm serve` asks for its version
        entry = ["vllm.entrypoints.openai.api_server", "--model"]
    words = [str(programs / "python"), "-m", *entry, plan.model]
    words += ["--host", "0.0.0.0", "--port", str(port), "--tensor-parallel-size", str(tp)]
    words += ["--pipeline-parallel-size", str(pp)]
    words += ["--data-parallel-size", str(plan.options.dp)] if plan.options.dp > 1 else []
    if job.nodes == 1:
        return [*words, *plan.words]
    if plan.options.ray:
        return [*words, "--distributed-executor-backend", "ray", *plan.words]
    words += ["--nnodes", str(job.nodes), "--node-rank", str(node)]
    words += ["--master-addr", head, "--master-port", str(port + 1)]
    return [*words, *(["--headless"] if node else []), *plan.words]


def parallel_sizes(plan: ServerPlan, job: Job) -> tuple[int, int]:
    """Tensor and pipeline parallel sizes. Raises UserError if the job has too few GPUs or they do not divide evenly."""
    nodes, gpus = job.nodes, job.gpus_per_node
    tp = plan.options.tp or max(1, gpus // plan.options.dp)
    if plan.options.server_command is not None or gpus == 0:
        return tp, plan.options.pp or nodes
    pp = plan.options.pp or max(1, min(nodes, nodes * gpus // (tp * plan.options.dp)))
    wanted = tp * pp * plan.options.dp
    request = f"--tp {tp} x --pp {pp} x --dp {plan.options.dp} needs {wanted} GPUs,"
    if wanted > nodes * gpus:
        raise UserError(
            f"{request} but the job has {nodes * gpus} ({nodes} node{'s' if nodes > 1 else ''} of {gpus}): give sbatch "
            f"--nodes={-(-wanted // gpus)}, or lower them."
        )
    if wanted % nodes:
        raise UserError(
            f"{request} which cannot be split evenly over {nodes} nodes: change one so that {nodes} divides the total."
        )
    return tp, pp


def check_installed(package: str, environment: Mapping[str, str]) -> None:
    """Raises UserError if the environment for servers lacks `package` (vllm or ray)."""
    programs = vllm_programs(environment)
    code = f"import sys; from importlib.util import find_spec as f; sys.exit(not f({package!r}))"
    try:
        look = [str(programs / "python"), "-c", code]
        found = subprocess.run(look, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except OSError:
        found = False
    if not found:
        name, what = {"vllm": ("vLLM", "it"), "ray": ("Ray", '"ray[default]"')}[package]
        raise UserError(
            f"{name} is not installed in {programs.parent}: install {what} there, or set OPEN_R1_VLLM_ENVIRONMENT in "
            "slurm/site.env to an environment that has it."
        )


def vllm_programs(environment: Mapping[str, str]) -> Path:
    """`bin` of the environment that vLLM is installed in."""
    return Path(environment.get("OPEN_R1_VLLM_ENVIRONMENT") or sys.prefix).absolute() / "bin"


def server_port(plan: ServerPlan, job: Job) -> int:
    """Where the server listens; every node computes the same port."""
    return plan.options.port or FIRST_PORT + int(job.number) % 400 * 4


def head_of(environment: Mapping[str, str]) -> str:
    """The address of the job's first node."""
    return address_of(host_names(environment["SLURM_JOB_NODELIST"])[0])


class ServerStep:
    """The Slurm step that runs the server."""

    def __init__(self, plan: ServerPlan, job: Job, head: str) -> None:
        self.job = job
        if plan.options.ray and job.nodes > 1:
            plan = replace(plan, dashboard=free_port(DASHBOARD_PORT))
        self.plan = plan
        parallel_sizes(plan, job)
        if plan.options.server_command is None:
            check_installed("vllm", os.environ)
        if plan.dashboard:
            check_installed("ray", os.environ)
        self.url = f"http://{head}:{server_port(plan, job)}"
        self.log = job.log("server")
        self._answered = False
        command = [sys.executable, "-m", "open_r1.launch.slurm", "serve_node", json.dumps(asdict(plan))]
        words = step(command, 1 if plan.options.server_command else job.nodes, overlap=True)
        self.process = ServerCommand("the server", Command(tuple(words), {}), self.url, self.log).start()

    def wait_until_answering(self) -> None:
        """Raises UserError if it ends before it answers, does not answer in time, or completes no prompt."""
        print(f"Starting a server for {self.plan.model} at {self.url}; its log is {self.log}.", flush=True)
        if self.plan.dashboard:
            print(
                f"Ray's dashboard is at http://localhost:{self.plan.dashboard} on {socket.gethostname()}.", flush=True
            )
        for _ in wait_until_up([self.process], self.plan.options.server_timeout, say, "--server-timeout"):
            self.check_alive()
        self._answered = True
        self._check_completion()

    def _check_completion(self) -> None:
        engine = OpenAIEngine(f"{self.url}/v1", self.plan.model, tries=2, timeout=600.0)
        engine.check()
        sampling = Sampling(temperature=0.0, max_tokens=32, logprobs=False)
        prompt: list[Message] = [{"role": "user", "content": "What is 1+1?"}]
        ((completion,),) = engine.generate([Request("sanity", prompt, sampling)])
        if completion.finish_reason == "error":
            raise UserError(f"the server is up but cannot complete a prompt: {completion.text}")
        print(f"Sanity check: {completion.text!r}", flush=True)

    def check_alive(self) -> None:
        """Raises UserError if the server has failed, Interrupted if it was stopped on request."""
        code = self.process.poll()
        if code in CONTINUED or (code == 0 and self._answered):
            raise Interrupted("The server was asked to stop.")
        self.process.check_alive()


def run_beside(server: ServerStep, client: list[str]) -> int:
    """The exit status of a client that needs the server. Raises UserError if the server ends first."""
    with ChildProcess("the client", client) as process:
        while (code := process.wait(1.0)) is None:
            if (
                server.process.poll() is not None and process.wait(30.0) is None
            ):  # the client may fail for the same reason
                server.check_alive()
    return code
