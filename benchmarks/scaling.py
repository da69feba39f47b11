"""Measures training over several GPUs: tokens/s and memory per GPU of DDP, FSDP2 and DeepSpeed ZeRO-2 and 3.

    python benchmarks/scaling.py --gpus 1 2 --backends ddp fsdp --shape 1.5b --results scaling.jsonl
    python benchmarks/scaling.py --gpus 4 --backends fsdp zero3 --shape 7b --cap 16384 --max_length 16384
    python benchmarks/scaling.py --device cpu --gpus 1 2 --shape tiny --max_length 2048 --steps 1   # gloo, two minutes

Each case is a run of its own under torchrun, with the environment that `accelerate launch --config_file
recipes/accelerate_configs/<backend>.yaml` would give it. Work per GPU stays the same (weak scaling): --rows rows of
--max_length tokens for SFT, --completions completions of log-normal length (median 400, cap 2,048) for GRPO, whose
step is timed from scored completions to the optimizer step; what it takes to put the weights together for an engine is
shown beside it. A case that is cut shows what it had measured, and the end of its log. The model has random weights of
the shape, float32 masters, and computes in bfloat16 on GPUs. One GPU runs without a backend. Out of memory is a result
too.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from measure import SHAPES, Result, StepTimer, build_model, build_tokenizer, environment, measured
from sft import Ours as OursSFT
from sft import documents
from torch import Tensor
from training import Ours as OursGRPO
from training import ReplayEngine, draw_batch, replayed_reward

from open_r1.configs import GRPOConfig, SFTConfig, TrainConfig
from open_r1.launch.backend_environment import backend_environment
from open_r1.modeling.attention import ATTENTION
from open_r1.modeling.compiling import compile_layers
from open_r1.processes.child import ChildProcess, describe_exit
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packed_trainer import PackedTrainer
from open_r1.training.sft import packed_rows

CONFIGS = Path(__file__).parents[1] / "recipes" / "accelerate_configs"


class GatheringEngine(ReplayEngine):
    """Takes the policy's weights, as an engine would, and notes how long that took."""

    seconds = 0.0

    def update_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Reads every weight once."""
        began = time.perf_counter()
        for _ in named_tensors:
            pass
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - began


def options(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Options that both tasks get."""
    on_cpu = args.device == "cpu"
    return {
        "output_dir": folder,
        "max_steps": args.warmup + args.steps,
        "learning_rate": 1e-6,
        "gradient_checkpointing": args.checkpointing == "on",
        "max_tokens_per_microbatch": args.budget,
        "bf16": not on_cpu,
        "use_cpu": on_cpu,
        "optim": "adamw_torch_fused",
        "report_to": "none",
        "save_strategy": "no",
        "seed": 0,
    }


def policy(args: argparse.Namespace, config: TrainConfig, result: Result) -> Any:
    """A model of the shape, after `config`, which has begun the process group."""
    model = build_model(args.shape, ATTENTION, torch.float32, str(config.device))
    result.parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    add_logprob_forward(model)
    if args.compile == "on":
        compile_layers(model)
    return model


def build_trainer(args: argparse.Namespace, timer: StepTimer, folder: str) -> tuple[PackedTrainer, GatheringEngine]:
    """The trainer of `args.task`, over all processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    common = {"tokenizer": build_tokenizer(), "callbacks": [timer]}
    if args.task == "sft":
        args.data, args.documents = None, 16 * args.rows * processes  # enough to fill the rows
        sft_config = SFTConfig(
            **options(args, folder), per_device_train_batch_size=args.rows, packing=True, max_length=args.max_length
        )
        from datasets import Dataset

        ids = documents(args)
        learned = [[0] + [1] * (len(row) - 1) for row in ids]
        rows = packed_rows(Dataset.from_dict({"input_ids": ids, "loss_mask": learned}), sft_config)
        trainer: Any = OursSFT(policy(args, sft_config, timer.result), sft_config, train_dataset=rows, **common)
        trainer.timer = timer
        return trainer, GatheringEngine(None)  # type: ignore[arg-type]
    per_gpu, args.completions = args.completions, args.completions * processes
    batch = draw_batch(args)
    engine = GatheringEngine(batch)
    grpo_config = GRPOConfig(
        **options(args, folder),
        num_generations=args.group,
        max_completion_length=args.cap,
        per_device_train_batch_size=per_gpu,
        shuffle_dataset=False,
    )
    trainer = OursGRPO(
        policy(args, grpo_config, timer.result),
        grpo_config,
        engine=engine,  # type: ignore[arg-type]
        reward_funcs=[replayed_reward],
        reward_names=["replayed"],
        stop_token_ids=[0],
        train_dataset=[
            {"prompt": [{"role": "user", "content": ""}], "prompt_ids": p, "prompt_text": ""} for p in batch.prompts
        ],
        **common,
    )
    trainer.timer = timer
    return trainer, engine


class ReportingTimer(StepTimer):
    """Tells of each step, and keeps the result so far in a file: what a case that is cut leaves behind."""

    def __init__(self, result: Result, args: argparse.Namespace) -> None:
        super().__init__(result, args.steps, args.warmup, deadline=float("inf"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.file = args.worker / f"{self.rank}.json"
        self.extra: dict[str, Any] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops the clock."""
        super().on_step_end(args, state, control, **kwargs)
        self.say(f"step {self.seen} of {self.warmup + self.steps}, {time.perf_counter() - self.began:.2f} s")
        self.write()

    def say(self, text: str) -> None:
        """A line in the log, from the first process."""
        if self.rank == 0:
            print(text, flush=True)

    def write(self) -> None:
        """The result of this process so far."""
        if self.result.seconds or self.result.error:
            figures = vars(self.result) | self.result.figures() | self.extra | environment()
            new = self.file.with_suffix(".new")
            new.write_text(json.dumps(figures))
            new.replace(self.file)


def work(args: argparse.Namespace) -> None:
    """One case, in each of its processes."""
    result = Result(f"{args.task}, {args.backends[0]}", {k: str(v) for k, v in vars(args).items()})
    timer = ReportingTimer(result, args)

    def run(result: Result) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer, engine = build_trainer(args, timer, folder)
            timer.say(f"{trainer.backend}: model and trainer are there")
            trainer.train()
            timer.extra |= {"backend": trainer.backend, "gather_seconds": engine.seconds}
            if torch.cuda.is_available():
                timer.extra["peak_gib"] = round(trainer.ranks.max(torch.cuda.max_memory_allocated() / 2**30), 2)

    measured(result, run)
    timer.write()
    if result.error:
        os._exit(1)  # torchrun then ends the other processes, which wait for this one


def launch(args: argparse.Namespace, task: str, backend: str, processes: int, timeout: float) -> dict[str, Any]:
    """Runs one case under torchrun; returns its result, or what it had measured when it was cut, and the last lines
    of its log where something went wrong."""
    env = {}
    if processes > 1:
        precision = "no" if args.device == "cpu" else "bf16"
        env = backend_environment(CONFIGS / f"{backend}.yaml", processes, precision)
    if args.device == "cpu":
        env |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    else:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(processes)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    log = args.logs / f"{task}-{processes}-{backend}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        words = [*torchrun, __file__, *args.argv, "--worker", folder, "--task", task, "--backends", backend]
        with ChildProcess(f"{task} {backend}", words, env, log) as case:
            try:
                code = case.wait(timeout)
            except KeyboardInterrupt:
                print(f"stopped in this case, whose last lines in {log} are:\n" + "\n".join(case.lines), flush=True)
                sys.exit(130)
        found = {int(file.stem): json.loads(file.read_text()) for file in Path(folder).glob("*.json")}
    ended = f"not finished after {timeout:.0f} s" if code is None else f"ended with {describe_exit(code)}"
    result = next((r for r in found.values() if r["error"]), found.get(0, {"error": ended}))
    if not result["error"] and len(result["seconds"]) < args.steps:
        result["cut"] = ended
    return result | ({"log": "\n".join(case.lines)} if result["error"] or "cut" in result else {})


def line(case: str, processes: int, result: dict[str, Any], one: float | None) -> str:
    """A row of the table."""
    if result.get("error"):
        return f"{case:<28} {result['error']}; its last lines:\n{result.get('log', '')}".rstrip()
    rate = result["tokens_per_second"]
    text = f"{case:<28} {rate:>9,} tokens/s  {rate / processes:>8,.0f} a GPU"
    if one:
        text += f"  {rate / processes / one:>5.0%} of one"
    if result.get("peak_gib"):
        text += f"  peak {result['peak_gib']:.1f} GiB a GPU"
    if result.get("gather_seconds"):
        text += f"  weights together in {result['gather_seconds']:.2f} s"
    if result.get("cut"):
        text += f"  ({result['cut']}: {len(result['seconds'])} steps)"
    return text


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2], help="processes; 1 is run without a backend")
    parser.add_argument("--backends", nargs="+", default=["ddp", "fsdp"], help="names in recipes/accelerate_configs")
    parser.add_argument("--tasks", nargs="+", choices=["sft", "grpo"], default=["sft", "grpo"])
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b")
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
    parser.add_argument("--time_budget", type=float, default=500, help="seconds; later cases are left out")
    parser.add_argument("--case_timeout", type=float, default=150, help="seconds for one case")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--logs", type=Path, help="folder for a log of each case (default: beside --results, or /tmp)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=["sft", "grpo"], default="sft", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.argv, args.no_signal = argv, 0.0
    if args.worker:
        args.median = args.median or (5000 if args.task == "sft" else 400)
        args.mean = args.mean or 1.3 * args.median
    return args


def main(argv: list[str] | None = None) -> None:
    """Measures every case."""
    args = parse(sys.argv[1:] if argv is None else argv)
    if args.worker:
        work(args)
        return
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    if args.logs is None:
        args.logs = args.results.with_suffix(".logs") if args.results else Path(tempfile.mkdtemp(prefix="scaling-"))
    print(f"Logs of the cases: {args.logs}", flush=True)
    deadline = time.monotonic() + args.time_budget
    for task in args.tasks:
        one = None
        for processes in args.gpus:
            for backend in args.backends if processes > 1 else ["one"]:
                case = f"{task}, {processes} GPU{'s' * (processes > 1)}, {backend}"
                left = deadline - time.monotonic()
                if left < 20:
                    print(f"{case}: left out, the time budget is spent", flush=True)
                    continue
                result = launch(args, task, backend, processes, min(left, args.case_timeout))
                if processes == 1 and not result.get("error"):
                    one = result["tokens_per_second"]
                print(line(case, processes, result, one), flush=True)
                if args.results is not None:
                    args.results.parent.mkdir(parents=True, exist_ok=True)
                    with args.results.open("a") as file:
                        file.write(json.dumps({"case": case, "gpus": processes} | result) + "\n")


if __name__ == "__main__":
    main()
