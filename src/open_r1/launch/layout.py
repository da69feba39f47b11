"""Computes which GPUs of which nodes train and which generate, from numbers alone.

Nodes are identified by rank. Training is on the first nodes, generators are on the last GPUs of the last nodes: on one
node with eight GPUs, seven train and one generates; with several nodes, the last one generates.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from open_r1.errors import UserError
from open_r1.run.model_size import tensor_parallel

Generation = Literal["none", "policy", "colocate", "server", "external"]
"""What samples completions: nothing (SFT), the policy's own forward pass, an engine on the training GPUs, vLLM servers
on separate GPUs, or servers started elsewhere."""

STATE_BYTES = {"ddp": (16, 0), "zero2": (4, 12), "zero3": (0, 16), "fsdp": (0, 16)}
"""Bytes a parameter of weights, gradients and Adam's moments in float32: what every process holds, and what is split
over processes."""


@dataclass(frozen=True)
class Cluster:
    """The machines of a run."""

    nodes: int
    gpus_per_node: int
    """0: the CPU."""
    processes_per_node: int | None = None
    """Training processes on a node. Default: one for each GPU that trains; on a CPU, one."""
    gpu_memory: int = 80 * 2**30
    """Bytes of one GPU."""


@dataclass(frozen=True)
class Job:
    """The requirements of a recipe, as numbers."""

    task: Literal["sft", "grpo"]
    generation: Generation
    parameters: int | None = None
    """None: not known before the model is downloaded."""
    attention_heads: int | None = None
    per_device_batch: int = 1
    accumulation: int = 1
    sequence_parallel: int = 1
    """Training processes that share packs."""
    num_generations: int | None = None
    tensor_parallel: int | None = None
    """GPUs of one generator. Default: as few as hold the weights."""
    data_parallel: int | None = None
    """Generators. Default: one on a single node; on several, as many as fill the last one."""
    accelerator: str = "ddp"
    adapters: bool = False
    """LoRA: only adapters have gradients and optimizer states."""
    recipe_learning_rate: float | None = None
    """The recipe's own, if neither it nor the batch was changed for this launch."""


@dataclass(frozen=True)
class Ports:
    """First port of each kind; servers of a node count up from theirs."""

    main: int = 29500
    control: int = 29400
    server: int = 8000


@dataclass(frozen=True)
class Server:
    """One generator: a server process on `gpus` of a node."""

    node: int
    gpus: tuple[int, ...]
    port: int


@dataclass(frozen=True)
class Layout:
    """Who does what."""

    cluster: Cluster
    job: Job
    ports: Ports
    train: tuple[tuple[int, ...], ...]
    """For each training node, from node 0 on, the GPUs that train (on a CPU: one number per process)."""
    servers: tuple[Server, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """Notes for the user, one sentence each."""

    @property
    def processes(self) -> int:
        """Training processes on all nodes."""
        return sum(map(len, self.train))

    @property
    def on_cpu(self) -> bool:
        return self.cluster.gpus_per_node == 0

    @property
    def batch(self) -> int:
        """Sequences of one optimizer step."""
        return self.job.per_device_batch * self.job.accumulation * self.groups

    @property
    def groups(self) -> int:
        """Training processes, or groups of them that share packs."""
        return self.processes // self.job.sequence_parallel

    @property
    def readers(self) -> str:
        """`groups` in words."""
        size = self.job.sequence_parallel
        unit = "process" if size == 1 else "group"
        plural = "" if self.groups == 1 else "es" if size == 1 else "s"
        return f"{self.groups} {unit}{plural}{'' if size == 1 else f' of {size} processes'}"

    def idle(self) -> list[tuple[int, int]]:
        """(node, GPU) of every GPU without work."""
        busy = {(node, gpu) for node, gpus in enumerate(self.train) for gpu in gpus}
        busy |= {(server.node, gpu) for server in self.servers for gpu in server.gpus}
        every = ((n, g) for n in range(self.cluster.nodes) for g in range(self.cluster.gpus_per_node))
        return [place for place in every if place not in busy]


def plan_layout(cluster: Cluster, job: Job, ports: Ports | None = None) -> Layout:
    """The layout of `job` on `cluster`. Raises UserError for what does not fit."""
    ports = ports or Ports()
    notes: list[str] = []
    servers = _servers(cluster, job, ports, notes) if job.generation == "server" else ()
    train = _train(cluster, servers)
    layout = Layout(cluster, job, ports, train, servers)
    _check_sequence_parallel(layout)
    _check_groups(layout)
    if idle := layout.idle():
        notes.append(f"{_places(idle)} is idle: change --tp, --dp or --processes to use it.")
    notes += _memory_notes(layout) + _speed_notes(layout) + _batch_notes(layout)
    return replace(layout, notes=tuple(notes))


def state_bytes(job: Job, processes: int) -> int | None:
    """Bytes of weights, gradients and optimizer states on each process; None if unknown."""
    if job.parameters is None or job.accelerator not in STATE_BYTES:
        return None
    whole, split = STATE_BYTES[job.accelerator]
    if job.adapters:
        whole, split = (4, 0) if whole else (0, 4)
    return job.parameters * whole + job.parameters * split // processes


def _servers(cluster: Cluster, job: Job, ports: Ports, notes: list[str]) -> tuple[Server, ...]:
    width, nodes = cluster.gpus_per_node, cluster.nodes
    if width == 0:
        return tuple(Server(nodes - 1, (), ports.server + i) for i in range(job.data_parallel or 1))
    if job.tensor_parallel is not None:
        size = job.tensor_parallel
        if size > width:
            raise UserError(
                f"--tp is {size}, but a node has {width} GPUs, and a generator must fit on one node: lower --tp, or "
                "start a larger server separately (docs/clusters.md) and set vllm_server_base_url."
            )
        if job.attention_heads is not None and job.attention_heads % size:
            raise UserError(f"--tp is {size}, which does not divide the model's {job.attention_heads} attention heads.")
    elif job.parameters is None:
        size = 1
        notes.append(
            "The size of the model is unknown here, so each generator gets one GPU: give --tp if the model is large."
        )
    else:
        size = tensor_parallel(job.parameters, job.attention_heads, width, cluster.gpu_memory)
    per_node = width // size
    count = job.data_parallel or (1 if nodes == 1 else per_node)
    generating = -(-count // per_node)
    all_taken = count * size >= width if nodes == 1 else generating >= nodes
    if all_taken:
        raise UserError(
            f"{count} x {size} GPUs for generators leave none of the {nodes * width} GPUs for training"
            f"{'' if nodes == 1 else ' (a node generates or trains)'}: lower --dp or --tp, ask for more nodes, or set "
            "engine to auto and vllm_mode to colocate, so that every GPU does both."
        )
    places = [(node, i) for node in range(nodes - 1, nodes - 1 - generating, -1) for i in range(per_node)]
    return tuple(
        Server(node, tuple(range(width - (i + 1) * size, width - i * size)), ports.server + i)
        for node, i in places[:count]
    )


def _train(cluster: Cluster, servers: tuple[Server, ...]) -> tuple[tuple[int, ...], ...]:
    wanted, width = cluster.processes_per_node, cluster.gpus_per_node
    if width == 0:
        return tuple(tuple(range(wanted or 1)) for _ in range(cluster.nodes))
    generating = {server.node for server in servers}
    nodes = 1 if cluster.nodes == 1 else cluster.nodes - len(generating)
    free = width - (sum(len(server.gpus) for server in servers) if cluster.nodes == 1 else 0)
    if wanted is not None and wanted > free:
        beside = " (the others generate)" if free < width else ""
        raise UserError(
            f"--processes is {wanted}, but only {free} GPUs can train on a node of {width}{beside}: give at "
            f"most {free}."
        )
    return tuple(tuple(range(wanted or free)) for _ in range(nodes))


def _check_sequence_parallel(layout: Layout) -> None:
    size, heads = layout.job.sequence_parallel, layout.job.attention_heads
    if heads is not None and heads % size:
        raise UserError(
            f"sequence_parallel_size is {size}, which does not divide the model's {heads} attention heads: change it."
        )
    if any(len(processes) % size for processes in layout.train):
        there = len(layout.train[0])
        raise UserError(
            f"sequence_parallel_size is {size}, which does not divide the {there} training processes of a node: give "
            f"--processes {max(there // size * size, size)}, or change it."
        )


def _check_groups(layout: Layout) -> None:
    job = layout.job
    if job.num_generations is not None and layout.batch % job.num_generations:
        raise UserError(
            f"num_generations is {job.num_generations}, which does not divide the {layout.batch} completions of a step "
            f"(per_device_train_batch_size {job.per_device_batch} x gradient_accumulation_steps {job.accumulation} x "
            f"{layout.readers}): change one of them so that it does."
        )


def _memory_notes(layout: Layout) -> list[str]:
    memory = layout.cluster.gpu_memory
    needed = state_bytes(layout.job, layout.processes)
    sharded = state_bytes(replace(layout.job, accelerator="zero3"), layout.processes)
    if needed is None or sharded is None or needed < memory or layout.on_cpu:
        return []
    remedy = "--accelerator zero3 or fsdp shards them" if sharded < memory else "use more GPUs, or LoRA (use_peft)"
    return [
        f"Weights, gradients and optimizer states take {needed / 2**30:.0f} GiB on each GPU, which has "
        f"{memory / 2**30:.0f} GiB: {remedy}."
    ]


def _speed_notes(layout: Layout) -> list[str]:
    """Choices that docs/clusters.md calls slow, each with an alternative."""
    job, notes = layout.job, []
    if layout.on_cpu or layout.processes == 1:
        return []
    if job.generation == "policy":
        copies = " with a copy of the model in each process" if job.accelerator in ("zero3", "fsdp") else ""
        notes.append(
            f"The policy itself writes the completions{copies}, which is slow: set engine to auto, or use_vllm to true "
            "with vllm_mode server (generators on separate GPUs)."
        )
    if job.accelerator == "zero3" and len(layout.train) > 1:
        notes.append(
            "ZeRO-3, the slowest backend (docs/clusters.md), gathers each layer over all nodes in every pass: "
            "--accelerator fsdp shards the weights too."
        )
    return notes


def _batch_notes(layout: Layout) -> list[str]:
    """Warns if the batch grew with the number of nodes but the learning rate was chosen for a smaller batch."""
    job, times = layout.job, len(layout.train)
    if job.recipe_learning_rate is None or times < 4:
        return []
    fewer = f", or --gradient_accumulation_steps {job.accumulation // times}" if job.accumulation % times == 0 else ""
    return [
        f"With {times} nodes a step has {layout.batch:,} sequences, {times} times as many as on one node, but "
        f"learning_rate is the recipe's {job.recipe_learning_rate:g}: give --learning_rate{fewer}, unless the recipe "
        f"is for {times} nodes."
    ]


def _places(places: list[tuple[int, int]]) -> str:
    nodes: dict[int, list[str]] = {}
    for node, gpu in places:
        nodes.setdefault(node, []).append(str(gpu))
    return " and ".join(f"GPU {','.join(gpus)} of node {node}" for node, gpus in nodes.items())
