"""Measures training over several GPUs: tokens/s and memory per GPU of DDP, FSDP2, DeepSpeed ZeRO-2 and 3, and sequence
parallelism.

    python benchmarks/scaling.py --gpus 1 2 4 8 --backends ddp fsdp zero2 zero3 --shapes 1.5b 7b --results s.jsonl
    python benchmarks/scaling.py --gpus 1 2 4 --backends fsdp --tasks --lengths 32768 131072 --share 1 2 4 \
        --results s.jsonl
    python benchmarks/scaling.py --device cpu --gpus 1 2 --shapes tiny --max_length 2048 --steps 1   # gloo
    python benchmarks/scaling.py ... --table         # what --results has, a table for each shape; measures nothing

Each layout is a run of its own under torchrun, with the environment that `accelerate launch --config_file
recipes/accelerate_configs/<backend>.yaml` would give it, and in it each case has a new model. Work per GPU stays the
same (weak scaling): --rows rows of --max_length tokens for SFT, --completions completions of log-normal length (median
400, cap 2,048) for GRPO, whose step is timed from scored completions to the optimizer step; the time to gather the
weights for an engine is shown beside it. Of --lengths, each step has one document per GPU, or with --share one for so
many GPUs (sequence parallel); steps of the warm-up have its first 2,048 tokens.

The model has random weights of the shape, float32 masters, and computes in bfloat16 on GPUs. One GPU runs without a
backend; the rates per GPU are relative to it. A case that fails, runs out of memory or is cut is a row too; the end of
its log follows. Results are appended as they come. A case that does not fit into the rest of --time_budget is left
out; the same command measures what --results lacks.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import SHAPES
from session import Session, add_options, choose_logs, end_of_log

from open_r1.launch.backend_environment import backend_environment
from open_r1.processes.child import ChildProcess, describe_exit

CONFIGS = Path(__file__).parents[1] / "recipes" / "accelerate_configs"
SETTINGS = ("device", "checkpointing", "compile", "budget", "rows", "max_length", "completions", "steps", "warmup")
"""Options that a result depends on, besides its case."""
HEAD = (
    "| {shape} | GPUs | Layout | tokens/s | range | per GPU, of one | peak per GPU, GiB | gathering weights, s | |\n"
    "| --- | --: | --- | --: | --- | --: | --: | --: | --- |"
)


def cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases, shape by shape, fewest GPUs first."""
    work = [(task, 0) for task in args.tasks] + [("sft", length) for length in args.lengths]
    found = []
    for shape in args.shapes:
        for task, length in work:
            for gpus in args.gpus:
                shares = [n for n in args.share if gpus % n == 0] if length else [1]
                for backend in args.backends if gpus > 1 else ["one"]:
                    for share in shares if gpus > 1 else [1]:
                        case = {"shape": shape, "task": task, "length": length, "gpus": gpus, "backend": backend}
                        found.append(case | {"share": share})
    return found


def work_of(case: dict[str, Any]) -> str:
    """What a case trains on."""
    return f"{case['task']}, {case['length']:,} tokens" if case["length"] else case["task"]


def layout_of(case: dict[str, Any]) -> str:
    """How the GPUs of a case share it."""
    return case["backend"] + (f", packs shared by {case['share']}" if case["share"] > 1 else "")


def name(case: dict[str, Any]) -> str:
    """A case in words."""
    return f"{case['shape']}, {work_of(case)}, {case['gpus']} GPU{'s' * (case['gpus'] > 1)}, {layout_of(case)}"


def launch(args: argparse.Namespace, group: list[dict[str, Any]], timeout: float) -> list[dict[str, Any]]:
    """Runs cases of one layout under torchrun, one after another; returns their results. One that was cut has what it
    had measured, and the last lines of the log say what went wrong. Cases that did not begin are left out, except for
    the first."""
    processes, backend = group[0]["gpus"], group[0]["backend"]
    env = {}
    if processes > 1:
        precision = "no" if args.device == "cpu" else "bf16"
        env = backend_environment(CONFIGS / f"{backend}.yaml", processes, precision)
    if args.device == "cpu":
        env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(processes)))
        env["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[:processes])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    slug = name(group[0]).replace(", ", "-").replace(" ", "-")
    log = args.logs / f"{slug}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        inner = json.dumps([*args.argv, "--worker", folder, "--case", json.dumps(group)])  # torchrun knows --logs too
        words = [*torchrun, __file__, inner]
        with ChildProcess(slug, words, env, log) as child:
            try:
                code = child.wait(timeout)
            except KeyboardInterrupt:
                print(f"stopped in this case, whose last lines in {log} are:\n" + "\n".join(child.lines), flush=True)
                sys.exit(130)
        found = [
            {int(file.stem): json.loads(file.read_text()) for file in Path(folder).glob(f"{i}/*.json")}
            for i in range(len(group))
        ]
        for file in Path(folder).glob("*/*.profile"):
            (args.logs / f"{slug}-{file.parent.name}-{file.name}").write_text(file.read_text())
    begun = 1 + max((i for i, results in enumerate(found) if results), default=0)
    return [result_of(results, args.steps, code, timeout, log) for results in found[:begun]]


def result_of(
    found: dict[int, dict[str, Any]], steps: int, code: int | None, timeout: float, log: Path
) -> dict[str, Any]:
    """The result of a case from those of its processes."""
    ended = f"not finished after {timeout:.0f} s" if code is None else f"ended with {describe_exit(code)}"
    result = next((r for r in found.values() if r["error"]), found.get(0, {"error": code and ended, "seconds": []}))
    if found:
        result["peak_gib"] = max(r["peak_gib"] for r in found.values())
    if not result["error"] and len(result["seconds"]) < steps:
        result["cut"] = ended
    return result | ({"log": end_of_log(log)} if result["error"] or "cut" in result else {})


class Scaling(Session):
    """The cases of this benchmark."""

    def name(self, case: dict[str, Any]) -> str:
        """A case in words."""
        return name(case)

    def launch(self, case: dict[str, Any], timeout: float) -> dict[str, Any]:
        """A run under torchrun, with all other cases of this layout that are not there yet."""
        layout = ("shape", "gpus", "backend", "share")
        same = [c for c in cases(self.args) if all(c[part] == case[part] for part in layout)]
        others = [c for c in same if c != case and not self.get(c)]
        group = [case] if case["backend"] == "zero3" else [case, *others]  # DeepSpeed keeps ZeRO-3's tensors
        first, *results = launch(self.args, group, timeout)
        for other, result in zip(group[1:], results, strict=False):
            if "cut" not in result:
                self.store(other, result | {"spent": 0.0})
        return first

    def head(self, case: dict[str, Any]) -> str:
        """A table for each shape."""
        return HEAD.format(shape=case["shape"])

    def cells(self, case: dict[str, Any], result: dict[str, Any]) -> list[str]:
        """Rates, memory, and the rate per GPU as a share of that of one GPU."""
        rate, gathering = result.get("tokens_per_second"), result.get("gather_seconds")
        one = self.get(case | {"gpus": 1, "backend": "one", "share": 1}).get("tokens_per_second")
        return [
            work_of(case),
            str(case["gpus"]),
            layout_of(case),
            f"{rate:,}" if rate else "-",
            "{:,} to {:,}".format(*result["range"]) if rate else "-",
            f"{rate / case['gpus'] / one:.0%}" if rate and one else "-",
            f"{result['peak_gib']:.1f}" if result.get("peak_gib") else "-",
            f"{gathering:.2f}" if gathering else "-",
        ]


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2], help="processes; 1 is run without a backend")
    backends = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
    parser.add_argument("--backends", nargs="+", choices=backends, default=["ddp", "fsdp"])
    parser.add_argument("--tasks", nargs="*", choices=["sft", "grpo"], default=["sft", "grpo"])
    parser.add_argument("--lengths", type=int, nargs="*", default=[], help="SFT on single documents of so many tokens")
    parser.add_argument("--share", type=int, nargs="+", default=[1], help="with --lengths: sequence_parallel_size")
    parser.add_argument("--shapes", "--shape", nargs="+", choices=list(SHAPES), default=["1.5b"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--checkpointing", choices=["on", "off"], default="on")
    parser.add_argument("--compile", choices=["on", "off"], default="off")
    parser.add_argument("--budget", type=int, default=16384, help="max_tokens_per_microbatch")
    parser.add_argument("--rows", type=int, default=4, help="SFT: rows a GPU and step")
    parser.add_argument("--max_length", type=int, default=16384, help="SFT: tokens of a row")
    parser.add_argument("--completions", type=int, default=64, help="GRPO: a GPU and step")
    parser.add_argument("--group", type=int, default=8, help="GRPO: completions a prompt")
    parser.add_argument("--prompts", type=int, nargs=2, default=(80, 200), help="GRPO: shortest and longest prompt")
    parser.add_argument("--median", type=float, help="median document or completion (default: 5,000 and 400)")
    parser.add_argument("--mean", type=float, help="their mean before the cap (default: 6,500 and 555)")
    parser.add_argument("--cap", type=int, default=2048, help="GRPO: longest completion")
    parser.add_argument("--steps", type=int, default=4, help="measured steps")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="one more step, whose profile of each GPU is in --logs")
    add_options(parser, case_timeout=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.argv, args.no_signal = argv, 0.0
    return args


def main(argv: list[str] | None = None) -> None:
    """Measures every case that is not there yet; in a process of a case, works on it."""
    given = sys.argv[1:] if argv is None else argv
    args = parse(json.loads(given[0]) if given[:1] and given[0].startswith("[") else given)
    if args.worker:
        from scaling_worker import work

        for number, case in enumerate(args.case):
            own = argparse.Namespace(**vars(args) | case | {"case": name(case), "worker": args.worker / str(number)})
            own.median = own.median or (5000 if own.task == "sft" else 400)
            own.mean = own.mean or 1.3 * own.median
            work(own)
        return
    choose_logs(args)
    Scaling(args, SETTINGS).run(cases(args))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    main()
