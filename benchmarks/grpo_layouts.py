"""Measures whole GRPO steps on several GPUs: the native engine on each of them, or a vLLM server on the last one while
the others train; and TRL's server mode beside it.

    python benchmarks/grpo_layouts.py --gpus 1 2 4 --data gsm8k_train.jsonl.gz --shape 1.5b \
        --tokenizer SmolLM2-135M-Instruct --prompts 48 --results layouts.jsonl --checkpointing --compile
    python benchmarks/grpo_layouts.py --gpus 2 --data problems.jsonl --model <a tiny model> --layouts native server \
        --prompts 4 --group 4 --tokens 16 --context 256 --steps 2 --warmup 1                # CPU, gloo
    python benchmarks/grpo_layouts.py ... --table       # what --results has; measures nothing

Options that are not listed here are those of grpo.py, which runs in the training processes; --extra comes last. A step
has the same completions in every layout, so --prompts has to be a multiple of all numbers of training processes. On a
CPU, a server is one more process. `max_staleness` rounds are sampled ahead, so that the trainer only waits for what is
not ready. --case_timeout does not count the start of a server. TRL (1.16.0) needs vLLM for GPUs. A layout that fails or
is cut is a row too; the end of its log follows. Results are appended as they come; a case that does not fit into the
rest of --time_budget is left out, and the same command measures what --results lacks.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from grpo import PHASES, save_model
from measure import SHAPES
from session import Session, add_options, choose_logs, end_of_log

from open_r1.engine.vllm.addresses import any_free_port
from open_r1.engine.vllm.process import ServerCommand, ServerOptions, ServerProcess, start_servers, vllm_server
from open_r1.errors import UserError
from open_r1.launch.backend_environment import backend_environment
from open_r1.processes.child import ChildProcess, Command, describe_exit

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "recipes" / "accelerate_configs"
SETTINGS = ("prompts", "group", "tokens", "mean", "steps", "warmup", "memory", "server_memory", "backend", "rest")
"""Options that a result depends on, besides its case."""
HEAD = (
    f"| {{model}} | GPUs | training processes | seconds a step | range | {' | '.join(PHASES)} | tokens | |\n"
    f"| --- | --: | --: | --: | --- |{' --: |' * (len(PHASES) + 1)} --- |"
)


def cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases, fewest GPUs first."""
    found = []
    for gpus in args.gpus:
        for layout in args.layouts:
            if layout == "native":
                found.append({"layout": layout, "gpus": gpus, "processes": gpus, "staleness": 0})
            elif gpus > 1:
                ahead = args.staleness if layout == "server" else [0]
                found += [{"layout": layout, "gpus": gpus, "processes": gpus - 1, "staleness": n} for n in ahead]
    return [{"model": args.shape or Path(args.model).name} | case for case in found]


def layout_of(case: dict[str, Any]) -> str:
    """A layout in words."""
    named = {"native": "native engine on every GPU", "server": "vLLM server", "trl": "TRL, vLLM server"}
    return named[case["layout"]] + (f", max_staleness {case['staleness']}" if case["layout"] == "server" else "")


class Layouts(Session):
    """The cases of this benchmark."""

    first_seconds = 60.0
    server: ServerProcess | None = None
    server_of: tuple[str, list[str]] = ("", [])

    def name(self, case: dict[str, Any]) -> str:
        """A case in words."""
        return f"{case['model']}, {case['gpus']} GPU{'s' * (case['gpus'] > 1)}, {layout_of(case)}"

    def head(self, case: dict[str, Any]) -> str:
        """One table."""
        return HEAD.format(model=case["model"])

    def cells(self, case: dict[str, Any], result: dict[str, Any]) -> list[str]:
        """Seconds of a step and of its phases."""
        first = [layout_of(case), str(case["gpus"]), str(case["processes"])]
        if "seconds" not in result:
            return [*first, *["-"] * (len(PHASES) + 3)]
        low, high = result["range"]
        phases = [f"{result[phase]:.2f}" for phase in PHASES]
        return [*first, f"{result['seconds']:.2f}", f"{low:.2f} to {high:.2f}", *phases, f"{result['tokens']:,}"]

    def launch(self, case: dict[str, Any], timeout: float) -> dict[str, Any]:
        """A run under torchrun, after its server is up."""
        slug = self.name(case).replace(", ", "-").replace(" ", "-")
        log = self.args.logs / f"{slug}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        names = visible_gpus()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            gpus, more = names[case["processes"] : case["gpus"]], []
            if case["layout"] == "native":
                engine = ["--engine", "native"]
            else:
                try:
                    more = ["--server", self.server_for(case["layout"], gpus).url]
                except UserError as error:  # with the end of the server's log
                    return {"error": str(error), "log": str(error)}
                engine = []
            env = {"CUDA_VISIBLE_DEVICES": ",".join(names[: case["processes"]])}
            if not names:
                env |= {"OMP_NUM_THREADS": "1"}
            if case["processes"] > 1:
                precision = "bf16" if names else "no"
                env |= backend_environment(CONFIGS / f"{self.args.backend}.yaml", case["processes"], precision)
            inner = "trl" if case["layout"] == "trl" else "ours"
            words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
            words += [str(case["processes"]), str(HERE / "grpo.py"), "--inner", f"{inner},{case['staleness']}"]
            file = folder / "result.jsonl"
            words += ["--model", self.args.model, *more, *self.args.forwarded, "--results", str(file)]
            words += [*self.args.rest, *([] if "--extra" in self.args.rest else ["--extra"]), *engine]
            child = stack.enter_context(ChildProcess(slug, words, env, log))
            code = child.wait(timeout)
            ended = f"not finished after {timeout:.0f} s" if code is None else f"ended with {describe_exit(code)}"
            if code is None:
                child.stop()
            result = json.loads(file.read_text().splitlines()[-1]) if file.exists() else {}
        if code:
            return result | {"error": ended, "log": end_of_log(log)}
        return result | ({} if code == 0 and result else {"cut": ended, "log": end_of_log(log)})

    def server_for(self, layout: str, gpus: list[str]) -> ServerProcess:
        """Our vLLM server, or TRL's, on `gpus` (none: the CPU). That of the case before is used again if it fits."""
        if self.server is None or self.server_of != (layout, gpus) or self.server.poll() is not None:
            self.stop_server()
            self.server, self.server_of = self.start_server(layout, gpus), (layout, gpus)
        return self.server

    def stop_server(self) -> None:
        """Ends the server, if there is one."""
        if self.server is not None:
            self.server.stop()
        self.server = None

    def start_server(self, layout: str, gpus: list[str]) -> ServerProcess:
        """Returns when it answers."""
        args, port = self.args, any_free_port()
        log = args.logs / f"server-{layout}-{'-'.join(gpus) or 'cpu'}.log"
        if layout == "trl":
            words = [sys.executable, "-m", "trl.scripts.vllm_serve", "--model", args.model, "--host", "127.0.0.1"]
            words += ["--port", str(port), "--max_model_len", str(args.tokens + args.context)]
            words += ["--gpu_memory_utilization", str(args.server_memory)]
            command = Command(tuple(words), {"CUDA_VISIBLE_DEVICES": ",".join(gpus)})
            server = ServerCommand("TRL's vLLM server", command, f"http://127.0.0.1:{port}", log)
        else:
            options = ServerOptions(
                model=args.model,
                port=port,
                dtype="bfloat16" if gpus else "float32",
                max_model_len=args.tokens + args.context,
                gpu_memory_utilization=args.server_memory if gpus else 0.2,
                enforce_eager=not gpus,
            )
            server = vllm_server(options, gpus, log)
        return start_servers([server], args.server_timeout, print)[0]


def visible_gpus() -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2], help="on a CPU: processes")
    parser.add_argument(
        "--layouts", nargs="+", choices=["native", "server", "trl"], default=["native", "server", "trl"]
    )
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1], help="server: rounds sampled ahead")
    parser.add_argument("--backend", default="ddp", help="of the training processes: a name in accelerate_configs")
    parser.add_argument("--model", help="a model folder")
    parser.add_argument("--shape", choices=list(SHAPES), help="random weights of that shape instead")
    parser.add_argument("--tokenizer", help="with --shape: the folder of a tokenizer with a chat template")
    parser.add_argument("--mean", type=float, default=400, help="--shape: mean completion, tokens, before the limit")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512, help="longest completion")
    parser.add_argument("--context", type=int, default=1024, help="a server's: tokens beside the completion")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--memory", type=float, default=0.3, help="share of a GPU's memory for the native engine")
    parser.add_argument("--server_memory", type=float, default=0.85, help="share of the memory of a server's GPU")
    parser.add_argument("--server_timeout", type=float, default=300, help="seconds until a server must answer")
    add_options(parser, case_timeout=200)
    args, args_of_grpo = parser.parse_known_args(argv)
    args.rest = args_of_grpo
    shared = ("prompts", "group", "tokens", "mean", "steps", "warmup", "memory")
    args.forwarded = [word for name in shared for word in (f"--{name}", str(getattr(args, name)))]
    if args.shape:
        args.forwarded += ["--shape", args.shape]
    for case in cases(args):
        if args.prompts % case["processes"]:
            parser.error(
                f"--prompts is {args.prompts}: it must be a multiple of {case['processes']} training processes"
            )
    return args


def main(argv: list[str] | None = None) -> None:
    """Measures every case that is not there yet."""
    args = parse(sys.argv[1:] if argv is None else argv)
    choose_logs(args)
    with tempfile.TemporaryDirectory() as folder:
        session = Layouts(args, SETTINGS)
        if args.shape and not args.table:
            save_model(args.shape, args.tokenizer, args.mean, folder)
            args.model = folder
        try:
            session.run(cases(args))
        finally:
            session.stop_server()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    main()
