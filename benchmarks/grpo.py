"""Measures whole GRPO steps on one GPU, here and in TRL: the same model, prompts, lengths, rewards.

    python benchmarks/grpo.py --model SmolLM2-135M-Instruct --data gsm8k_train.jsonl.gz
    python benchmarks/grpo.py --shape 1.5b --tokenizer SmolLM2-135M-Instruct --data gsm8k_train.jsonl.gz --prompts 32 \
        --micro-batch 32 --checkpointing --compile --trl_attention flash_attention_4 --trl_liger
    python benchmarks/grpo.py --model SmolLM2-135M-Instruct --data gsm8k_train.jsonl.gz --mode server --staleness 0 1

Rows of --data have the columns problem and answer. Seconds a step are split into generation, scoring, training (with
the optimizer, to its end on the GPU) and weight update; the first --warmup steps are left out. Graphs that were
compiled in a measured step are counted. `--profile` adds a step and shows what the host did in it that is neither
generation nor training. `--shape` takes random weights, made to end a completion after
about --mean tokens, the tokenizer of --tokenizer, and a coin for a reward. `--mode server` trains on the first GPU and
has a vLLM server write on the others (on a CPU: both share it), once for every --staleness. TRL (1.16.0) gets colocated
vLLM, a micro-batch of --micro-batch completions and Open R1's own rewards.
"""

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import SHAPES, build_model, coin_reward, end_sometimes, environment, synchronize
from transformers import TrainerCallback

from open_r1.run.entry import exit_with_sentence

PHASES = ("weight_update", "generation", "scoring", "training", "waiting", "rest")
"""`waiting` is for rounds that a thread writes ahead, whose generation and scoring are not part of the step."""
SETTINGS = ("prompts", "group", "budget", "micro_batch", "checkpointing", "compile", "memory")
TRL_SETTINGS = ("trl_attention", "trl_liger", "trl_compile")
PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
"""Of torchrun (`grpo_layouts.py`); they share a step's completions."""
SYSTEM = "Reason between <think> and </think>, then give the final answer between <answer> and </answer>."


class Clock(TrainerCallback):
    """Wall-clock seconds of each step, and the seconds of its phases."""

    def __init__(self, steps: int, time_budget: float, profile_to: Path | None = None) -> None:
        self.steps, self.time_budget, self.profile_to = steps, time_budget, profile_to
        self.profiler: cProfile.Profile | None = None
        self.ends: list[float] = []
        self.phases: list[dict[str, float]] = []
        self.now: dict[str, float] = defaultdict(float)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Step 1 begins."""
        self.ends = [time.perf_counter()]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step after the measured ones is profiled."""
        if self.profile_to is not None and len(self.phases) == self.steps:
            self.profiler = cProfile.Profile()
            self.profiler.enable()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimizer is a part of training."""
        synchronize()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step ends; the last one ends the run."""
        if self.profiler is not None:
            control.should_training_stop = True
            return
        self.ends.append(time.perf_counter())
        self.now["compiled"] = compiled_graphs() - sum(step.get("compiled", 0) for step in self.phases)
        self.phases.append(dict(self.now))
        self.now.clear()
        spent = self.ends[-1] - self.ends[0]
        whole = len(self.phases) >= self.steps and self.profile_to is None
        control.should_training_stop = whole or spent > self.time_budget

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes the profile of the last step."""
        if self.profiler is not None and self.profile_to is not None:
            self.profiler.disable()
            with self.profile_to.open("w") as file:
                pstats.Stats(self.profiler, stream=file).sort_stats("cumulative").print_stats(150)
            print(f"profile: {self.profile_to}", flush=True)

    def timed(self, phase: str, function: Callable) -> Callable:
        """`function`, with its seconds added to a phase."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.now[phase] += time.perf_counter() - began

        return call

    def result(self, warmup: int) -> dict[str, Any]:
        """Medians over the steps after `warmup`; `rest` is what is in no phase. Training is what is left of a step that
        does not time it itself."""
        seconds = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        for phases, whole in zip(self.phases, seconds, strict=True):
            phases.setdefault("training", whole - sum(phases.get(name, 0.0) for name in PHASES[:3]))
            phases["rest"] = whole - sum(phases.get(name, 0.0) for name in PHASES[:-1])
        kept = seconds[warmup:]
        split = {name: statistics.median(p.get(name, 0.0) for p in self.phases[warmup:]) for name in PHASES}
        return {
            "steps": len(kept),
            "seconds": round(statistics.median(kept), 3),
            "range": [round(min(kept), 3), round(max(kept), 3)],
            **{name: round(value, 3) for name, value in split.items()},
            "tokens": round(statistics.mean(p.get("tokens", 0.0) for p in self.phases[warmup:])),
            "compiled": round(sum(p.get("compiled", 0) for p in self.phases[warmup:])),
        }


def compiled_graphs() -> int:
    """Number of graphs that `torch.compile` has made in this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def run_ours(args: argparse.Namespace, clock: Clock, staleness: int) -> None:
    """`open-r1 grpo`."""
    import torch

    import open_r1.grpo
    import open_r1.run.trainers
    from open_r1.run.trainers import GRPOTrainer

    class Timed(GRPOTrainer):
        def __init__(self, *positional: Any, callbacks: Any = (), **named: Any) -> None:
            super().__init__(*positional, callbacks=[*callbacks, clock], **named)

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            step = {name: self._step_metrics.get(f"time/{name}") for name in PHASES}
            length = self._step_metrics.get("completions/mean_length")
            if clock.phases and length and clock.profiler is None:
                clock.phases[-1] |= {name: values[-1] for name, values in step.items() if values}
                clock.phases[-1]["tokens"] = length[-1] * args.prompts * args.group
            super().log(logs, start_time)

    open_r1.run.trainers.GRPOTrainer = Timed  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "model_name_or_path": args.model,
            "dataset_name": args.data,
            "dataset_prompt_column": "problem",
            "system_prompt": SYSTEM,
            "reward_funcs": "[measure:coin_reward]" if args.shape else "[accuracy, format]",
            "output_dir": folder,
            "vllm_gpu_memory_utilization": args.memory,
            "vllm_enforce_eager": args.eager,
            "per_device_train_batch_size": args.prompts * args.group // PROCESSES,
            "num_generations": args.group,
            "max_completion_length": args.tokens,
            "max_tokens_per_microbatch": args.budget,
            "gradient_checkpointing": args.checkpointing,
            "torch_compile": args.compile,
            "learning_rate": 1e-6,
            "max_steps": args.steps + args.warmup + (args.profile is not None),
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": not torch.cuda.is_available(),
        }
        if args.server:
            options |= {
                "use_vllm": True,
                "vllm_mode": "server",
                "vllm_server_base_url": args.server,
                "max_staleness": staleness,
            }
        open_r1.grpo.main([f"--{name}={value}" for name, value in options.items()] + args.extra)


def run_trl(args: argparse.Namespace, clock: Clock) -> None:
    """TRL's trainer, with colocated vLLM or its own server."""
    from datasets import load_dataset
    from trl import GRPOConfig, GRPOTrainer

    from open_r1.rewards.accuracy import accuracy_reward
    from open_r1.rewards.format import format_reward

    rows = load_dataset("json", data_files=args.data, split="train")

    def as_prompt(row: dict[str, Any]) -> dict[str, Any]:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["problem"]}]
        return {"prompt": messages, "solution": row["answer"]}

    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            args.model,
            reward_funcs=[coin_reward] if args.shape else [accuracy_reward, format_reward],
            args=GRPOConfig(
                output_dir=folder,
                use_vllm=True,
                vllm_mode="server" if args.server else "colocate",
                vllm_server_base_url=args.server,
                vllm_gpu_memory_utilization=args.memory,
                vllm_max_model_length=args.tokens + 1024,
                per_device_train_batch_size=args.micro_batch,
                gradient_accumulation_steps=args.prompts * args.group // args.micro_batch // PROCESSES,
                num_generations=args.group,
                max_completion_length=args.tokens,
                gradient_checkpointing=args.checkpointing,
                gradient_checkpointing_kwargs={"use_reentrant": False} if args.checkpointing else None,
                bf16=not args.eager,
                model_init_kwargs={"attn_implementation": args.trl_attention},
                use_liger_kernel=args.trl_liger,
                torch_compile=args.trl_compile,
                learning_rate=1e-6,
                max_steps=args.steps + args.warmup + (args.profile is not None),
                save_strategy="no",
                report_to="none",
                logging_steps=1,
                disable_tqdm=True,
            ),
            train_dataset=rows.map(as_prompt, remove_columns=rows.column_names),
            callbacks=[clock],
        )
        vllm = trainer.vllm_generation
        vllm.sync_weights = clock.timed("weight_update", vllm.sync_weights)
        vllm.generate = clock.timed("generation", vllm.generate)
        trainer._calculate_rewards = clock.timed("scoring", trainer._calculate_rewards)
        generate = trainer._generate

        def counted(prompts: Any) -> Any:
            output = generate(prompts)
            clock.now["tokens"] += sum(len(ids) for ids in output[1])
            return output

        trainer._generate = counted
        trainer.train()


def measure(args: argparse.Namespace, case: str, staleness: int) -> None:
    """Runs one case."""
    clock = Clock(args.steps + args.warmup, args.time_budget, args.profile)
    try:
        if case == "trl":
            run_trl(args, clock)
        else:
            run_ours(args, clock, staleness)
    finally:
        if len(clock.phases) > args.warmup and os.environ.get("RANK", "0") == "0":
            report(args, clock, case, staleness)


def report(args: argparse.Namespace, clock: Clock, case: str, staleness: int) -> None:
    """Prints and appends the line of a case, also of one that ended early."""
    name = f"{case}, server, staleness {staleness}" if args.server else case
    line = {"case": name, "model": args.shape or Path(args.model).name, **clock.result(args.warmup)}
    split = ", ".join(f"{phase} {line[phase]}" for phase in (*PHASES, "compiled") if line[phase])
    low, high = line["range"]
    print(f"{name:<20} {line['seconds']} s a step ({low} to {high}), {line['tokens']:,} tokens: {split}", flush=True)
    if args.results is not None:
        args.results.parent.mkdir(parents=True, exist_ok=True)
        with args.results.open("a") as file:
            names = SETTINGS + (TRL_SETTINGS if case == "trl" else ())
            settings = {name: getattr(args, name) for name in names} | {"longest_completion": args.tokens}
            file.write(json.dumps(line | settings | environment()) + "\n")


def save_model(shape: str, tokenizer_folder: str, mean: float, folder: str) -> None:
    """A model of a shape with random weights, which ends its completions after about `mean` tokens."""
    import torch
    from transformers import AutoTokenizer

    model = build_model(shape, "sdpa", torch.bfloat16, "cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    end_sometimes(model, tokenizer.eos_token_id, mean)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def main() -> None:
    """Measures every case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model folder")
    parser.add_argument("--shape", choices=list(SHAPES), help="random weights of that shape instead")
    parser.add_argument("--tokenizer", help="with --shape: the folder of a tokenizer with a chat template")
    parser.add_argument("--data", required=True)
    parser.add_argument("--cases", nargs="+", choices=["ours", "trl"], default=["ours", "trl"])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512, help="longest completion")
    parser.add_argument("--mean", type=float, default=400, help="--shape: mean completion, tokens, before the limit")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations: the 1.5B shape needs it")
    parser.add_argument("--compile", action="store_true", help="ours: torch_compile")
    parser.add_argument("--trl_attention", default="sdpa", help="attn_implementation of TRL's model")
    parser.add_argument(
        "--trl_liger", action="store_true", help="liger kernels in TRL's model (pip install liger-kernel)"
    )
    parser.add_argument("--trl_compile", action="store_true", help="TRL's model compiled as a whole")
    parser.add_argument("--budget", type=int, default=16384, help="ours: tokens a micro-batch")
    parser.add_argument("--micro-batch", type=int, default=64, help="TRL: completions a micro-batch")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--memory", type=float, default=0.3, help="share of the GPU's memory for generation")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs (CPU)")
    parser.add_argument("--time-budget", type=float, default=1e6, help="seconds for the steps of each case")
    parser.add_argument("--profile", type=Path, help="file for a profile of the host in one more step")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="more options of open-r1 grpo, last")
    parser.add_argument(
        "--mode", choices=["colocate", "server"], default="colocate", help="who writes: here, or a server"
    )
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1], help="server: rounds written ahead")
    parser.add_argument("--api-servers", type=int, default=1, help="server: processes that speak HTTP")
    parser.add_argument("--port", type=int, default=8000, help="server: its port")
    parser.add_argument("--server-log", type=Path, help="server: file for its log")
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner is not None:
        case, staleness = args.inner.split(",")
        exit_with_sentence(partial(measure, args, case, int(staleness)))
    with tempfile.TemporaryDirectory() as folder:
        if args.shape is not None:
            save_model(args.shape, args.tokenizer, args.mean, folder)
        inner = ["--model", args.model or folder]
        if args.mode == "server":
            with_server(args, inner, Path(folder))
        else:
            for case in args.cases:
                run_inner(f"{case},0", inner, dict(os.environ))


def run_inner(case: str, options: list[str], environment: dict[str, str]) -> None:
    """One case in a process of its own."""
    subprocess.run([sys.executable, __file__, "--inner", case, *options, *sys.argv[1:]], check=False, env=environment)


def with_server(args: argparse.Namespace, options: list[str], folder: Path) -> None:
    """Our cases, one for each staleness, with a vLLM server that is started here and ends with the last."""
    import torch

    from open_r1.engine.vllm.process import ServerOptions, start_servers, vllm_server

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    if len(gpus) == 1:
        raise SystemExit("--mode server needs a second GPU (or none at all)")
    began = time.monotonic()
    command = vllm_server(
        ServerOptions(
            model=options[1],
            port=args.port,
            tensor_parallel_size=max(1, len(gpus) - 1),
            dtype="bfloat16" if gpus else "float32",
            max_model_len=args.tokens + 1024,
            gpu_memory_utilization=args.memory,
            enforce_eager=args.eager,
        ),
        gpus[1:],
        args.server_log or folder / "server.log",
        ["--api-server-count", str(args.api_servers)] if args.api_servers > 1 else [],
    )
    (server,) = start_servers([command], 1800.0, print)
    try:
        print(f"server ready after {time.monotonic() - began:.0f} s", flush=True)
        environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": gpus[0]} if gpus else {})
        for staleness in args.staleness:
            run_inner(f"ours,{staleness}", [*options, "--server", server.url], environment)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
