"""Measures how long a context one GPU trains: tokens/s and peak memory of SFT and of GRPO's training phase.

    python benchmarks/long.py --results long.jsonl                     # 1.5B and 7B, in full and LoRA; one GPU
    python benchmarks/long.py --shapes tiny --sft 256 --grpo 128       # CPU, a minute
    python benchmarks/long.py --results long.jsonl --table             # what has been measured, as a table
    python benchmarks/long.py --computed                               # what would fit on which GPU, by the estimate

A row is a shape, what is trained, a task and a length: two documents a step of so many tokens, or four completions,
random tokens all. The settings of --settings are tried in their order until one fits (--every: all of them), so that
the ones before say what runs out. Each is a process of its own. A row that --results has is not measured again: the
same command goes on after --time_budget. Weights are float32, computed with in bfloat16; beside each peak stands what
`--dry_run` estimates.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measure import SHAPES, Result, StepTimer, build_model, build_tokenizer, environment, measured
from sft import Ours as OursSFT
from training import DEVICE, Batch, ReplayEngine, replayed_reward
from training import Ours as OursGRPO

from open_r1.configs import GRPOConfig, ModelConfig, SFTConfig
from open_r1.errors import UserError
from open_r1.modeling.attention import ATTENTION
from open_r1.modeling.compiling import compile_layers
from open_r1.modeling.mlp import chunk_mlps
from open_r1.run.estimate import estimate_memory, shape_of, tokens_in_pack
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.sft import packed_rows

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "chunks": {"mlp_chunk_tokens": 4096},
    "offload": {"mlp_chunk_tokens": 4096, "activation_offloading": True},
    "8bit": {"mlp_chunk_tokens": 4096, "activation_offloading": True, "optim": "adamw_8bit"},
    "paged": {"mlp_chunk_tokens": 4096, "activation_offloading": True, "optim": "paged_adamw_8bit"},
}
"""What each adds to gradient checkpointing and packs of 16,384 tokens, or of one document that is longer."""
PROMPT = 128
GPUS = (24, 48, 80, 141)
"""Memory in GB."""
UNFINISHED = "not finished after"


def tokens(count: int, shape: str, rng: random.Random) -> list[int]:
    """Random ones, none of which ends a text."""
    return [rng.randrange(2, SHAPES[shape][5]) for _ in range(count)]


def config_of(case: dict[str, Any], folder: str, **options: Any) -> tuple[Any, ModelConfig]:
    """What the trainer of a case is told."""
    common: dict[str, Any] = {
        "output_dir": folder,
        "optim": "adamw_torch_fused",
        "max_steps": 10_000,
        "learning_rate": 1e-6,
        "bf16": DEVICE == "cuda",
        "use_cpu": DEVICE == "cpu",
        "report_to": "none",
        "save_strategy": "no",
        **SETTINGS[case["setting"]],
        **options,
    }
    model = ModelConfig(model_name_or_path=case["shape"], use_peft=case["train"] == "lora")
    if case["task"] == "sft":
        return SFTConfig(per_device_train_batch_size=2, max_length=case["length"], **common), model
    common |= {"per_device_train_batch_size": 4, "num_generations": 4, "shuffle_dataset": False}
    return GRPOConfig(max_completion_length=case["length"], **common), model


def estimate(case: dict[str, Any], model: Any, processes: int = 1, **options: Any) -> int:
    """Bytes that `--dry_run` estimates for a process; several split weights and states (FSDP2)."""
    args, config = config_of(case, "runs/none", **options)
    longest = case["length"] + (PROMPT if case["task"] == "grpo" else 0)
    shape, split = shape_of(model.config, model, config), "none" if processes == 1 else "fsdp"
    return estimate_memory(shape, args, config, tokens_in_pack(args, longest), processes, split).total  # type: ignore[arg-type]


def build(case: dict[str, Any], timer: StepTimer, folder: str) -> Any:
    """The trainer of a case."""
    rng, shape, length = random.Random(0), case["shape"], case["length"]
    args, config = config_of(case, folder)
    model: Any = build_model(shape, ATTENTION, torch.float32, DEVICE)
    case["estimate"] = estimate(case, model)
    timer.result.parameters = model.num_parameters()
    add_logprob_forward(model)
    if args.mlp_chunk_tokens is not None:
        chunk_mlps(model, args.mlp_chunk_tokens)
    if case["compiled"]:
        compile_layers(model)
    if config.use_peft:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=config.lora_r, target_modules="all-linear"))
    rest: dict[str, Any] = {"tokenizer": build_tokenizer(), "callbacks": [timer]}
    if case["task"] == "sft":
        ids = [tokens(length, shape, rng) for _ in range(8)]
        data = Dataset.from_dict({"input_ids": ids, "loss_mask": [[0] + [1] * (length - 1)] * len(ids)})
        return OursSFT(model, args, train_dataset=packed_rows(data, args), **rest)
    prompt, completions = tokens(PROMPT, shape, rng), [tokens(length, shape, rng) for _ in range(4)]
    row = {"prompt": [{"role": "user", "content": ""}], "prompt_ids": prompt, "prompt_text": ""}
    return OursGRPO(
        model,
        args,
        engine=ReplayEngine(Batch([prompt], [completions], [[0.0, 1.0, 0.0, 1.0]])),  # type: ignore[arg-type]
        reward_funcs=[replayed_reward],
        reward_names=["replayed"],
        stop_token_ids=[0],
        train_dataset=[row] * 8,
        **rest,
    )


def measure(case: dict[str, Any], steps: int, out: Path) -> None:
    """One case, in a process of its own; `out` gets its result."""
    result = Result(name(case), case)
    timer = StepTimer(result, steps, warmup=1, deadline=float("inf"))  # Adam's moments are there after a step

    def run(_: Result) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = build(case, timer, folder)
            trainer.timer = timer
            try:
                trainer.train()
            except UserError as error:
                raise error.__cause__ if isinstance(error.__cause__, torch.OutOfMemoryError) else error from None

    measured(result, run)
    out.write_text(json.dumps(vars(result) | result.figures() | environment()))


def measure_apart(case: dict[str, Any], steps: int, timeout: float) -> dict[str, Any]:
    """The result of a case, whatever becomes of its process."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "result.json", Path(folder) / "log"
        words = [sys.executable, __file__, "--case", json.dumps(case), "--steps", str(steps), "--out", str(out)]
        with log.open("w") as file:
            try:
                code: int | None = subprocess.run(words, stdout=file, stderr=file, timeout=timeout).returncode
            except subprocess.TimeoutExpired:
                code = None
        if out.exists():
            return json.loads(out.read_text())
        last = (log.read_text().strip().splitlines() or ["no output"])[-1]
        ended = f"{UNFINISHED} {timeout:.0f} s" if code is None else f"ended with status {code}"
        return {"case": name(case), "settings": case, "error": f"{ended}: {last[:200]}"} | environment()


def name(case: dict[str, Any]) -> str:
    """As the table has it."""
    compiled = ", compiled" if case["compiled"] else ""
    return f"{case['shape']} {case['train']}, {case['task']} {case['length']:,}, {case['setting']}{compiled}"


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every row, without its setting."""
    tasks = [("sft", n) for n in args.sft] + [("grpo", n) for n in args.grpo]
    return [
        {"shape": shape, "train": train, "task": task, "length": length, "compiled": args.compile}
        for shape, train, (task, length) in itertools.product(args.shapes, args.train, tasks)
    ]


def known(results: Path | None) -> dict[str, dict[str, Any]]:
    """Results that are there, by the name of their case."""
    if results is None or not results.exists():
        return {}
    lines = [json.loads(text) for text in results.read_text().splitlines()]
    return {found["case"]: found for found in lines}


def show(found: dict[str, Any]) -> str:
    """A line of the table."""
    estimate = found["settings"].get("estimate")
    cells = [found["case"], *["-"] * 4]
    if found.get("seconds"):
        cells[1] = f"{found['tokens_per_second']:,}"
    if (peak := found.get("peak_gib")) is not None:
        cells[2] = f"{peak:.1f}"
    if estimate:
        cells[3] = f"{estimate / 2**30:.1f}"
    cells[4] = (found.get("error") or "fits")[:60]
    return "| " + " | ".join(cells) + " |"


HEAD = "| Case | tokens/s | peak, GiB | estimate, GiB | |\n| --- | --: | --: | --: | --- |"


def show_computed(args: argparse.Namespace) -> None:
    """The first setting that fits, by the estimate, in a tenth less than each GPU has: on one GPU, and on each of 8
    that split weights and states, of which `sequence_parallel_size` share a pack."""
    print("| Case | GPUs | " + " | ".join(f"{size} GB" for size in GPUS) + " |\n| --- | --- |" + " :-: |" * len(GPUS))
    for row in rows(args):
        model = build_model(row["shape"], ATTENTION, torch.float32, "meta")
        for processes, share in ((1, 1), (8, 1), (8, 4)):
            options = {"sequence_parallel_size": share, "max_tokens_per_microbatch": 16384 // share, "bf16": True}
            settings = [s for s in args.settings if processes == 1 or "optim" not in SETTINGS[s]]  # FSDP2 takes torch's
            need = {s: estimate(row | {"setting": s}, model, processes, **options) for s in settings}
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
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=["plain", "chunks", "offload", "8bit"])
    parser.add_argument("--every", action="store_true", help="every setting, also where an earlier one fits")
    parser.add_argument("--compile", action="store_true", help="compiled decoder layers")
    parser.add_argument("--steps", type=int, default=1, help="measured steps, after one")
    parser.add_argument("--row_timeout", type=float, default=300, help="seconds for one setting of a row")
    parser.add_argument("--time_budget", type=float, default=570, help="seconds; the same command then goes on")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--table", action="store_true", help="show what --results has, and measure nothing")
    parser.add_argument("--computed", action="store_true", help="show what would fit on which GPU, and measure nothing")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measures every row that is not there yet."""
    args = parse(argv)
    if args.case is not None:
        measure(args.case, args.steps, args.out)
        return
    if args.computed:
        show_computed(args)
        return
    deadline, there = time.monotonic() + args.time_budget, known(args.results)
    print(HEAD, flush=True)
    for row in rows(args):
        for setting in args.settings:
            case = row | {"setting": setting}
            found = there.get(name(case))
            if found is None and not args.table:
                left = deadline - time.monotonic()
                found = measure_apart(case, args.steps, min(left, args.row_timeout)) if left > 20 else None
                if found is None or (left < args.row_timeout and str(found.get("error")).startswith(UNFINISHED)):
                    print("The time budget is spent: the same command goes on from here.")
                    return
                if args.results is not None:
                    args.results.parent.mkdir(parents=True, exist_ok=True)
                    with args.results.open("a") as file:
                        file.write(json.dumps(found) + "\n")
            if found is not None:
                print(show(found), flush=True)
                if not found.get("error") and not args.every:
                    break


if __name__ == "__main__":
    main()
