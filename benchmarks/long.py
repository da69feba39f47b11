"""Measures how long a context one GPU trains: tokens/s and peak memory of SFT and of GRPO's training phase.

    python benchmarks/long.py --results long.jsonl --time_budget 420   # 1.5B and 7B, in full and LoRA; one GPU
    CUDA_VISIBLE_DEVICES=0 python benchmarks/long.py --results long.jsonl --train full &   # the same on two GPUs
    CUDA_VISIBLE_DEVICES=1 python benchmarks/long.py --results long.jsonl --train lora
    python benchmarks/long.py --shapes tiny --sft 256 512 --grpo 128   # CPU, under a minute
    python benchmarks/long.py --results long.jsonl --table             # what has been measured, as a table
    python benchmarks/long.py --computed                               # what would fit on which GPU, by the estimate

A row is a shape, what is trained, a task, and the sequences of a step, which are random tokens: one document for SFT,
two completions of a shared prompt for GRPO (--documents, --completions). The settings of --settings are tried in order
until one fits. One that runs out of memory is not tried with longer sequences, and one whose estimate exceeds the GPU's
memory is not tried at all. SFT with --every tokens is measured with all settings, to compare what each saves and costs.

A process builds the model of a shape once and measures all its rows, shortest first. A row begins with a step of at
most 2,048 tokens per sequence, so that kernels are compiled and Adam's moments exist; then come --steps whole ones.
With offloading, pinned memory is allocated before them. Another process takes over if it dies. A row that does not fit
into the rest of --time_budget does not start; the same command measures what --results lacks. Weights are float32,
computed with in bfloat16. Each peak is compared with the estimate of `--dry_run`.
"""

import argparse
import functools
import itertools
import json
import multiprocessing
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from long_worker import DEVICE, FLASH, SETTINGS, config_of, longest, name, serve
from measure import SHAPES, build_model, environment

from open_r1.modeling.attention import ATTENTION
from open_r1.run.estimate import estimate_seconds, shape_of
from open_r1.run.memory import estimate_memory

GPUS = (24, 48, 80, 141)
"""Memory in GB."""
OVERHEAD = 35.0 if DEVICE == "cuda" else 5.0
"""Seconds of a process's first row beside its measured steps, until one has been measured."""
QUICK = 3.0
"""Seconds of a step below which three are measured instead of one."""
UNFINISHED, ENDED, OUT_OF_MEMORY = "not finished after", "the process ended with status", "out of memory"
HEAD = (
    "| Case | attention | tokens/s | peak, GiB | estimate, GiB | error | seconds spent | |\n"
    "| --- | --- | --: | --: | --: | --: | --: | --- |"
)


def estimate(case: dict[str, Any], model: Any, processes: int = 1, **options: Any) -> tuple[int, float]:
    """Bytes that `--dry_run` estimates for a process, and seconds of a step; several processes split weights and
    states (FSDP2)."""
    if DEVICE == "cuda":  # `use_cpu` keeps this process off the GPU, but the estimate is for one
        case = case | {"attention": case["attention"] or FLASH}
    args, config = config_of(case, "runs/none", use_cpu=True, **options)
    shape, split, tokens = shape_of(model.config, model, config), "none" if processes == 1 else "fsdp", longest(case)
    memory = estimate_memory(shape, args, config, tokens, processes, split)  # type: ignore[arg-type]
    return memory.total, estimate_seconds(shape, args, case["count"] * tokens, case["length"], processes)


@functools.cache
def skeleton(shape: str) -> Any:
    """The model without weights."""
    return build_model(shape, ATTENTION, torch.float32, "meta")


class Worker:
    """A process that measures the cases of one model, and another one after its death."""

    process: Any = None
    connection: Connection

    def start(self) -> None:
        """Begins to import, unless it has; nothing is on the GPU before the first case."""
        if self.process is not None and self.process.is_alive():
            return
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def measure(self, case: dict[str, Any], steps: int, timeout: float) -> dict[str, Any]:
        """The result of a case, whatever becomes of the process. An error of CUDA ends it: CUDA may be unusable."""
        self.start()
        try:
            self.connection.send((case, steps))
            if self.connection.poll(timeout):
                found = self.connection.recv()
            else:
                self.close()
                found = failure(case, f"{UNFINISHED} {timeout:.0f} s")
        except (EOFError, OSError):
            self.process.join()
            found = failure(case, f"{ENDED} {self.process.exitcode}")
        if "CUDA" in str(found["error"]) and not out_of_memory(found):
            self.close()
        return found

    def close(self) -> None:
        """Ends the process, which frees its memory."""
        if self.process is not None:
            self.process.kill()
            self.process.join()


def failure(case: dict[str, Any], error: str) -> dict[str, Any]:
    """The result of a case whose process gave none."""
    return {"case": name(case), "settings": case, "error": error} | environment()


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every row, without its setting, those of a model shortest first."""
    tasks = [("sft", args.documents, n) for n in args.sft] + [("grpo", args.completions, n) for n in args.grpo]
    tasks.sort(key=lambda task: task[2])
    options = {"compiled": args.compile, "attention": args.attention}
    return [
        {"shape": shape, "train": train, "task": task, "count": count, "length": length} | options
        for shape, train, (task, count, length) in itertools.product(args.shapes, args.train, tasks)
    ]


def known(results: Path | None) -> dict[str, dict[str, Any]]:
    """Results that are there, by the name of their case."""
    if results is None or not results.exists():
        return {}
    lines = [json.loads(text) for text in results.read_text().splitlines()]
    return {found["case"]: found for found in lines}


def out_of_memory(found: dict[str, Any]) -> bool:
    """Whether a case ended for want of memory."""
    return str(found.get("error")).startswith(OUT_OF_MEMORY)


def settings_to_compare(row: dict[str, Any]) -> list[str]:
    """All settings. LoRA has hardly any moments, so the ones for the optimizer are left out."""
    return [setting for setting, options in SETTINGS.items() if row["train"] == "full" or "optim" not in options]


def gpu_bytes() -> float:
    """The GPU's memory."""
    return torch.cuda.get_device_properties(0).total_memory if DEVICE == "cuda" else float("inf")


def estimate_error(found: dict[str, Any]) -> float | None:
    """The estimate over the peak that was measured, less 1, of a case that fits."""
    if found.get("error") or not found.get("peak_gib"):
        return None
    return found["settings"]["estimate"] / 2**30 / found["peak_gib"] - 1


def show(found: dict[str, Any]) -> str:
    """A line of the table."""
    error, settings = estimate_error(found), found["settings"]
    cells = [
        found["case"],
        found.get("attention") or "-",
        f"{found['tokens_per_second']:,}" if found.get("seconds") else "-",
        "-" if found.get("peak_gib") is None else f"{found['peak_gib']:.1f}",
        f"{settings['estimate'] / 2**30:.1f}",
        "-" if error is None else f"{error:+.1%}",
        f"{found['spent']:.0f}",
        (found.get("error") or "fits")[:100],
    ]
    return "| " + " | ".join(cells) + " |"


class Session:
    """What one call of this script measures: results that are there, the time that is left, and how long rows take."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.found = args, known(args.results)
        self.deadline = time.monotonic() + args.time_budget
        groups = itertools.groupby(rows(args), lambda row: (row["shape"], row["train"]))
        self.groups = [(list(group), Worker()) for _, group in groups]
        self.shown: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.slowness, self.overhead = 1.0, OVERHEAD
        """Measured seconds for each estimated one, and seconds beside the measured steps, of the last row."""

    def run(self) -> None:
        """Measures and shows all rows, model by model."""
        for index, (group, worker) in enumerate(self.groups):
            self.overhead = OVERHEAD
            try:
                self.measure_model(index, group)
            finally:
                worker.close()

    def measure_model(self, index: int, group: list[dict[str, Any]]) -> None:
        """Measures and shows the rows of a model, each with the first setting that fits, or with all settings."""
        too_long: set[tuple[str, str]] = set()
        for row in group:
            every = row["task"] == "sft" and row["length"] in self.args.every
            for setting in settings_to_compare(row) if every else self.args.settings:
                if (row["task"], setting) in too_long:
                    continue
                case = row | {"setting": setting}
                found = self.found.get(name(case)) or self.measure(index, case)
                if found is None:
                    if every:
                        continue
                    break
                self.shown.append(found)
                print(show(found), flush=True)
                if out_of_memory(found):
                    too_long.add((row["task"], setting))
                elif not str(found.get("error")).startswith((UNFINISHED, ENDED)) and not every:
                    break  # it fits, or another setting would fail too

    def measure(self, index: int, case: dict[str, Any]) -> dict[str, Any] | None:
        """The result of a case, which is appended to --results; None if the time is too short for it."""
        if self.args.table:
            return None
        for _, worker in self.groups[index : index + 2]:  # the next one imports meanwhile
            worker.start()
        case["estimate"], seconds = estimate(case, skeleton(case["shape"]))
        if case["estimate"] > gpu_bytes():
            return self.record(failure(case, f"{OUT_OF_MEMORY} by the estimate, not tried") | {"spent": 0.0})
        began, limit = time.monotonic(), self.args.row_timeout
        steps = self.args.steps or (3 if seconds < QUICK else 1)
        left = self.deadline - began
        if left < self.overhead + steps * self.slowness * seconds:
            self.left_out.append(name(case))
            return None
        found = self.groups[index][1].measure(case, steps, min(left, limit))
        if left < limit and str(found["error"]).startswith(UNFINISHED):
            self.left_out.append(name(case))
            return None
        found["spent"] = round(time.monotonic() - began, 1)
        if found.get("seconds"):
            measured = sum(found["seconds"])
            self.slowness = measured / len(found["seconds"]) / seconds
            self.overhead = max(0.0, found["spent"] - measured)
        return self.record(found)

    def record(self, found: dict[str, Any]) -> dict[str, Any]:
        """Appends a result to --results."""
        if self.args.results is not None:
            self.args.results.parent.mkdir(parents=True, exist_ok=True)
            with self.args.results.open("a") as file:
                file.write(json.dumps(found) + "\n")
        return found

    def summarize(self) -> None:
        """The worst estimate, and what the time did not suffice for."""
        errors = {found["case"]: e for found in self.shown if (e := estimate_error(found)) is not None}
        if errors:
            worst = max(errors, key=lambda case: abs(errors[case]))
            print(f"The worst of {len(errors)} estimates is {errors[worst]:+.1%} off: {worst}.")
        if self.left_out:
            print(f"The time is too short for {len(self.left_out)} rows, which the same command measures:")
            print("\n".join(f"  {case}" for case in self.left_out))


def show_computed(args: argparse.Namespace) -> None:
    """The first setting that fits, by the estimate, in a tenth less than each GPU has: on one GPU, and on each of 8
    that split weights and states, of which `sequence_parallel_size` share a pack."""
    print("| Case | GPUs | " + " | ".join(f"{size} GB" for size in GPUS) + " |\n| --- | --- |" + " :-: |" * len(GPUS))
    for row in rows(args):
        row["attention"] = row["attention"] or "varlen"
        for processes, share in ((1, 1), (8, 1), (8, 4)):
            options = {"sequence_parallel_size": share, "max_tokens_per_microbatch": 16384 // share, "bf16": True}
            settings = [s for s in args.settings if processes == 1 or "optim" not in SETTINGS[s]]  # FSDP2 takes torch's
            need = {
                s: estimate(row | {"setting": s}, skeleton(row["shape"]), processes, **options)[0] for s in settings
            }
            fits = [next((s for s in settings if need[s] < 0.9 * size * 1e9), "-") for size in GPUS]
            gpus = f"{processes}{f', packs shared by {share}' if share > 1 else ''}"
            case = f"{row['shape']} {row['train']}, {row['task']} {row['length']:,}"
            print(f"| {case} | {gpus} | {' | '.join(fits)} |", flush=True)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["1.5b", "7b"])
    parser.add_argument("--train", nargs="+", choices=["full", "lora"], default=["full", "lora"])
    parser.add_argument("--sft", type=int, nargs="*", default=[32768, 65536, 131072], help="tokens of a document")
    parser.add_argument("--grpo", type=int, nargs="*", default=[16384, 32768], help="tokens of a completion")
    parser.add_argument("--documents", type=int, default=1, help="a step of SFT")
    parser.add_argument("--completions", type=int, default=2, help="a step of GRPO, all of one prompt")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=["plain", "chunks", "offload", "8bit"])
    parser.add_argument("--every", type=int, nargs="*", default=[65536], help="lengths of SFT to try all settings with")
    parser.add_argument("--compile", action="store_true", help="compiled decoder layers")
    parser.add_argument("--attention", choices=["varlen", FLASH, "sdpa"], help="attn_implementation")
    parser.add_argument("--steps", type=int, help="measured steps (default: 3 of quick ones, else 1)")
    parser.add_argument("--row_timeout", type=float, default=240, help="seconds for one setting of a row")
    parser.add_argument("--time_budget", type=float, default=570, help="seconds; the same command then goes on")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--table", action="store_true", help="show what --results has, and measure nothing")
    parser.add_argument("--computed", action="store_true", help="show what would fit on which GPU, and measure nothing")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measures every row that is not there yet."""
    args = parse(argv)
    if args.computed:
        show_computed(args)
        return
    print(HEAD, flush=True)
    session = Session(args)
    try:
        session.run()
    except KeyboardInterrupt:
        print("Stopped; the same command measures the rest.")
    session.summarize()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    main()
