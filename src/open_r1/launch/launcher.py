"""Runs `open-r1 launch` on a node: plans the layout, checks what this node needs, and runs its share."""

import importlib.util
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from open_r1.devices import gpu_memory, visible_devices
from open_r1.engine.vllm.addresses import address_towards
from open_r1.engine.vllm.process import ServerCommand
from open_r1.errors import UserError
from open_r1.files import check_writable
from open_r1.installing import install_command
from open_r1.launch.control import Control
from open_r1.launch.layout import Cluster, Layout, Server, plan_layout
from open_r1.launch.layout_table import show_layout
from open_r1.launch.node_run import NodePlan, NodeRun
from open_r1.launch.nodes import Place, check_port, choose_ports, find_place
from open_r1.launch.recipe import Recipe, distributed_type, find_accelerator, job_of, read_recipe
from open_r1.processes.child import Command
from open_r1.run.generators import generator_command
from open_r1.training.backends import requested_backend
from open_r1.training.model import load_config
from open_r1.training.optimizers import why_not_sharded

if TYPE_CHECKING:
    from open_r1.launch.options import LaunchOptions

FIRST_SERVER_PORT = 8000
"""The default of vllm_server_port. If the recipe leaves it, the next free port is taken."""


def launch(options: "LaunchOptions", recipe_name: str, overrides: list[str], environment: Mapping[str, str]) -> int:
    """The exit status. Raises UserError before anything is started."""
    config = find_accelerator(options.accelerator)
    recipe = read_recipe(recipe_name, overrides)
    if distributed_type(config) == "FSDP" and (problem := why_not_sharded(recipe.args)):
        raise UserError(problem)
    place = _place(options, environment)
    layout = make_layout(options, recipe, config, place)
    if place.rank == 0:
        show_layout(recipe, layout, config)
    launcher = Launcher(recipe, layout, config, place, options.server_command)
    if options.dry_run:
        for node in range(place.nodes):
            print(f"\nnode {node}:\n" + "\n".join(f"  {command}" for command in launcher.dry_commands(node)))
        return 0
    launcher.check_here()
    return launcher.run(options.start_timeout, options.grace)


def make_layout(options: "LaunchOptions", recipe: Recipe, config: Path, place: Place) -> Layout:
    """The layout, with ports that are free here."""
    memory = int(options.gpu_memory * 2**30) if options.gpu_memory else gpu_memory()
    gpus = options.gpus_per_node if options.gpus_per_node is not None else len(visible_devices())
    cluster = Cluster(place.nodes, gpus, options.processes, memory or 80 * 2**30)
    job = job_of(recipe, config.stem, options.tp, options.dp)
    servers = plan_layout(cluster, job).servers
    port = getattr(recipe.args, "vllm_server_port", FIRST_SERVER_PORT)
    chosen = None if port == FIRST_SERVER_PORT else port
    ports = choose_ports(place, options.main_port, chosen, max(1, len(servers)))
    return plan_layout(cluster, job, ports)


class Launcher:
    """A layout on its nodes, as one of them sees it."""

    def __init__(
        self, recipe: Recipe, layout: Layout, config: Path, place: Place, server_template: str | None = None
    ) -> None:
        self.recipe, self.layout, self.config, self.place = recipe, layout, config, place
        self.server_template = server_template
        self.servers = [server for server in layout.servers if server.node == place.rank]
        self.trains = place.rank < len(layout.train)

    def check_here(self) -> None:
        """Raises UserError if this node lacks the model, GPUs, ports, packages, or a writable output folder."""
        layout, ports = self.layout, self.layout.ports
        here = len(visible_devices())
        if here < layout.cluster.gpus_per_node:
            raise UserError(
                f"--gpus-per-node is {layout.cluster.gpus_per_node}, and {socket.gethostname()} has {here} GPUs: give "
                f"--gpus-per-node {here}{' (the CPU) and --processes' if here == 0 else ''}."
            )
        if self.place.rank == 0:
            check_port(ports.main, "for the processes to meet", "--main-port")
            if self.place.nodes > 1:
                check_port(ports.control, "for the nodes to meet", "--main-port")
        for server in self.servers:
            check_port(
                server.port,
                "a generator",
                "--vllm_server_port, or --vllm_server_base_url to use the server that listens there",
            )
        if distributed_type(self.config) == "DEEPSPEED" and self.trains:
            _require("deepspeed", f"--accelerator {self.config.stem}", install_command("deepspeed"))
        if self.servers and self.server_template is None:
            _require("vllm", "vllm_mode: server", f"{install_command('vllm')}, or give --server-command")
        load_config(self.recipe.model)
        check_writable(Path(self.recipe.args.output_dir or "."))

    def run(self, start_timeout: float, grace: float) -> int:
        """Runs the share of this node; returns the exit status."""
        layout, place = self.layout, self.place
        plan = f"{layout} {self.recipe.overrides} {self.recipe.path.read_text(encoding='utf-8')}"
        control = Control(place.nodes, place.rank, place.head, layout.ports.control, plan, start_timeout)
        own = address_towards(place.head)
        control.publish("address", own)

        def training() -> Command:
            urls = [f"http://{control.value('address', s.node)}:{s.port}" for s in layout.servers]
            return self._training(place.rank, visible_devices(), urls)

        node = NodePlan(
            name=control.host(place.rank) if place.nodes > 1 else "this node",
            servers=tuple(self._generator(server, own) for server in self.servers),
            training=training if self.trains else None,
            training_nodes=range(len(layout.train)),
            server_nodes=range(min((s.node for s in layout.servers), default=place.nodes), place.nodes),
            server_timeout=getattr(self.recipe.args, "vllm_server_timeout", 0.0),
            stop_grace=grace,
        )
        return NodeRun(node, control).run()

    def dry_commands(self, node: int) -> list[Command]:
        """The commands that a node would run."""
        here = visible_devices()
        wanted = self.layout.cluster.gpus_per_node
        gpus = here if len(here) >= wanted else [str(i) for i in range(wanted)]
        hosts = self.place.addresses
        servers = [self._server(s, hosts[node], gpus) for s in self.layout.servers if s.node == node]
        urls = [f"http://{hosts[s.node]}:{s.port}" for s in self.layout.servers]
        return servers + ([self._training(node, gpus, urls)] if node < len(self.layout.train) else [])

    def _training(self, node: int, gpus: Sequence[str], urls: Sequence[str]) -> Command:
        """`accelerate launch` on training node `node`; `gpus` are the names of its GPUs, `urls` those of generators."""
        recipe, layout = self.recipe, self.layout
        words = [sys.executable, "-m", "open_r1.launch.accelerate_launch", "--config_file", str(self.config)]
        words += ["--num_machines", str(len(layout.train)), "--num_processes", str(layout.processes)]
        words += ["--machine_rank", str(node), "--main_process_ip", self.place.head]
        words += ["--main_process_port", str(layout.ports.main)]
        if layout.on_cpu:
            words += ["--mixed_precision", "no"]
        words += [str(Path(__file__).parents[1] / f"{recipe.task}.py"), "--config", str(recipe.path), *recipe.overrides]
        if urls:
            words += ["--vllm_server_base_url", ",".join(urls)]
        environment = requested_backend(layout.processes, distributed_type(self.config))
        if not layout.on_cpu:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[i] for i in layout.train[node])
        return Command(tuple(words), environment)

    def _server(self, server: Server, host: str, gpus: Sequence[str]) -> Command:
        names = [gpus[i] for i in server.gpus]
        return generator_command(self.recipe.model, self.recipe.args, host, server.port, names, self.server_template)

    def _generator(self, server: Server, host: str) -> ServerCommand:
        name = f"generator {server.port}"
        log = Path(self.recipe.args.output_dir) / "run" / "launch" / f"node-{server.node}-generator-{server.port}.log"
        command = self._server(server, host, visible_devices())
        return ServerCommand(name, command, f"http://{host}:{server.port}", log)


def _place(options: "LaunchOptions", environment: Mapping[str, str]) -> Place:
    """A dry run may name nodes that do not exist."""
    if options.dry_run and options.nodes is not None and options.node_rank is None:
        names = ("127.0.0.1",) if options.nodes == 1 else tuple(f"node{i}" for i in range(options.nodes))
        return Place(options.nodes, 0, names)
    return find_place(options.nodes, options.node_rank, options.head, environment)


def _require(package: str, why: str, remedy: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{why} needs {package}, which is not installed: {remedy}.")
