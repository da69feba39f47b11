"""The table of a layout that a launch prints first."""

from pathlib import Path
from typing import Any, get_args

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from open_r1.launch.layout import Layout, state_bytes
from open_r1.launch.recipe import Recipe, shape_of_model
from open_r1.run.estimate import Shape, Split, estimate_seconds
from open_r1.run.memory import estimate_memory

GENERATED_BY = {
    "policy": "the policy itself, on the training {devices}",
    "colocate": "on the training {devices}, one engine per process",
    "external": "the servers at {url}",
}


def show_layout(recipe: Recipe, layout: Layout, accelerator: Path, console: Console | None = None) -> None:
    """Prints who does what, and the notes of the layout."""
    job, cluster = layout.job, layout.cluster
    table = Table(recipe.task, str(recipe.path), title="Layout", title_justify="left")
    size = f" ({_parameters(job.parameters)})" if job.parameters else ""
    table.add_row("model", f"{recipe.model.model_name_or_path}{size}")
    devices = f"{cluster.gpus_per_node} GPUs each" if cluster.gpus_per_node else "the CPU"
    table.add_row("machines", f"{_count(cluster.nodes, 'node')}, {devices}")
    table.add_row("train", _train(layout, accelerator))
    if generate := _generate(recipe, layout):
        table.add_row("generate", generate)
    table.add_row("effective batch", _batch(layout))
    states = state_bytes(job, layout.processes)
    if (shape := shape_of_model(recipe.model)) is not None and job.accelerator in get_args(Split):
        for name, value in _needs(recipe, layout, shape).items():
            table.add_row(name, value)
    elif states is not None:
        table.add_row("states per process", f"{states / 2**30:.1f} GiB of weights, gradients and Adam's moments")
    ports = [f"{layout.ports.main} processes meet"]
    if cluster.nodes > 1:
        ports.append(f"{layout.ports.control} nodes meet")
    if layout.servers:
        ports.append(f"{_range([server.port for server in layout.servers])} generators")
        ports.append(f"{recipe.args.vllm_group_port} weights")
    table.add_row("ports", ", ".join(ports))
    table.add_row("output", str(recipe.args.output_dir))
    notes = [Text(f"note: {note}", style="yellow") for note in layout.notes]
    (console or Console()).print(Group(table, *notes))


def _train(layout: Layout, accelerator: Path) -> str:
    unit = "process" if layout.on_cpu else "GPU"
    rows = [f"node {node}: {unit} {_range(gpus)}" for node, gpus in enumerate(layout.train)]
    backend = "gloo" if layout.on_cpu else "nccl"
    return "\n".join(
        [*rows, f"{_count(layout.processes, 'process')} ({backend}), {layout.job.accelerator}: {accelerator}"]
    )


def _needs(recipe: Recipe, layout: Layout, shape: Shape) -> dict[str, str]:
    """Memory and time, computed, if every sequence is as long as the options allow."""
    args, job, processes = recipe.args, layout.job, layout.processes
    longest = args.longest_completion
    split: Any = "none" if processes == 1 else job.accelerator
    memory = estimate_memory(shape, args, recipe.model, longest, processes, split)
    seconds = estimate_seconds(shape, args, layout.batch * longest, longest, processes)
    if layout.on_cpu:
        return {"memory per process": f"{memory} (computed)"}
    return {
        "memory per process": f"{memory} (computed); a GPU has {layout.cluster.gpu_memory / 2**30:.0f} GiB",
        "time per step": f"at most about {max(seconds, 1):,.0f} s of training on H100s (computed)",
    }


def _generate(recipe: Recipe, layout: Layout) -> str:
    if layout.servers:
        rows = [
            f"node {s.node}: {'GPU ' + _range(s.gpus) if s.gpus else 'the CPU'}, port {s.port}" for s in layout.servers
        ]
        size = max(1, len(layout.servers[0].gpus))
        return "\n".join([*rows, f"tensor parallel {size}, data parallel {len(layout.servers)}"])
    url = getattr(recipe.args, "vllm_server_base_url", None)
    devices = "processes" if layout.on_cpu else "GPUs"
    return GENERATED_BY.get(layout.job.generation, "").format(devices=devices, url=url)


def _batch(layout: Layout) -> str:
    job = layout.job
    factors = f"{job.per_device_batch} x {job.accumulation} steps x {layout.readers}"
    if job.num_generations is None:
        return f"{layout.batch:,} rows ({factors})"
    prompts = layout.batch // job.num_generations
    return f"{layout.batch:,} completions = {prompts:,} prompts x {job.num_generations} ({factors})"


def _parameters(count: int) -> str:
    size = f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count:,}"
    return f"{size} parameters"


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"


def _range(numbers: list[int] | tuple[int, ...]) -> str:
    first, last = min(numbers), max(numbers)
    whole = sorted(set(numbers)) == list(range(first, last + 1))
    return str(first) if first == last else f"{first}-{last}" if whole else ",".join(map(str, numbers))
