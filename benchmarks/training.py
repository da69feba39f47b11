"""Measures the training phase of a GRPO step, from scored completions to its end, here, in TRL and in unsloth.

    python benchmarks/training.py --shape 1.5b                        # one GPU, the cases that docs/performance.md has
    python benchmarks/training.py --shape 1.5b --long                 # completions of up to 16k tokens
    python benchmarks/training.py --shape tiny --completions 32       # CPU, under a minute
    python benchmarks/training.py --shape 1.5b --cases ours --checkpointing off --profile profile.txt
    python benchmarks/training.py --shape 7b --lora --cases ours trl unsloth --unsloth_path <folder>

The model has random weights of the shape, completions are random tokens of log-normal length, and every trainer gets
the same ones. A case is a trainer and its settings; results are printed, and appended to --results, as they come.
TRL (1.16.0) is measured if it is installed; unsloth runs from a folder of its own (see unsloth_process.py). Out of
memory is a result too.
"""

import argparse
import itertools
import os
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measure import (
    DEVICE,
    SHAPES,
    Result,
    StepTimer,
    build_model,
    build_tokenizer,
    draw_lengths,
    dtype_of,
    lora_config,
    measured,
    report,
)
from replayed_batch import Batch, ReplayedTRL, replayed, rollout_function
from transformers.trainer_callback import PrinterCallback
from unsloth_process import add_unsloth_options, check_unsloth_options, run_unsloth_worker

from open_r1.configs import GRPOConfig
from open_r1.engine.protocol import Completion, Request
from open_r1.modeling.attention import ATTENTION, VARLEN_ATTENTION
from open_r1.modeling.compiling import compile_layers
from open_r1.training import grpo_batches
from open_r1.training.grpo import GRPOTrainer
from open_r1.training.grpo_batches import carries_signal
from open_r1.training.logprobs import add_logprob_forward

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
KERNELS = {"fastest": ATTENTION, "varlen": VARLEN_ATTENTION}


def draw_batch(args: argparse.Namespace) -> Batch:
    """The same completions for every case. Groups without signal are the first `no_signal` share."""
    rng = random.Random(args.seed)
    vocabulary = SHAPES[args.shape][5]
    lengths = draw_lengths(args.completions, args.median, args.mean, args.cap, args.seed)
    groups = args.completions // args.group

    def tokens(n: int) -> list[int]:
        return [rng.randrange(2, vocabulary) for _ in range(n)]

    prompts = [tokens(rng.randint(*args.prompts)) for _ in range(groups)]
    completions = [[tokens(n) for n in lengths[g * args.group : (g + 1) * args.group]] for g in range(groups)]
    silent = round(args.no_signal * groups)
    rewards = [[0.0 if g < silent else float(i % 2) for i in range(args.group)] for g in range(groups)]
    return Batch(prompts, completions, rewards)


class ReplayEngine:
    """Answers each prompt with the completions that were drawn for it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def stream(self, requests: Iterable[Request]) -> Iterator[tuple[Any, list[Completion]]]:
        """Completions of a prompt, whose text is its reward."""
        for request in requests:
            index = self.batch.prompts.index(request.prompt)  # type: ignore[arg-type]
            pairs = zip(self.batch.completions[index], self.batch.rewards[index], strict=True)
            yield request.id, [Completion(str(reward), ids, None, "stop", 0) for ids, reward in pairs]

    def update_weights(self, named_tensors: Any, version: int) -> None:
        """Weights change nothing here."""

    def sleep(self) -> None:
        """Holds no memory."""

    def wake(self) -> None:
        """Holds no memory."""


def training_options(args: argparse.Namespace, checkpointing: bool, folder: str) -> dict[str, Any]:
    """Options that every trainer gets."""
    return {
        "output_dir": folder,
        "max_steps": 10_000,
        "learning_rate": 1e-6,
        "num_generations": args.group,
        "max_completion_length": args.cap,
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
        "bf16": DEVICE == "cuda",
        "use_cpu": DEVICE == "cpu",
        "optim": "adamw_torch_fused",
        "report_to": "none",
        "save_strategy": "no",
        "seed": 0,
    }


def run_ours(
    args: argparse.Namespace,
    batch: Batch,
    timer: StepTimer,
    result: Result,
    *,
    checkpointing: bool,
    compiled: bool,
    share: bool,
    skip: bool,
    budget: int,
    attention: str,
) -> None:
    """Open R1's trainer."""
    model = build_model(args.shape, KERNELS[attention], dtype_of(args), DEVICE)
    result.parameters = model.num_parameters()
    add_logprob_forward(model)
    if args.lora:
        from peft import get_peft_model

        model = get_peft_model(model, lora_config())
    if compiled:
        compile_layers(model)
    rows = [{"prompt": [{"role": "user", "content": ""}], "prompt_ids": p, "prompt_text": ""} for p in batch.prompts]
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            **training_options(args, checkpointing, folder),
            per_device_train_batch_size=args.completions,
            max_tokens_per_microbatch=budget,
            torch_compile=compiled,
            shuffle_dataset=False,
        )
        grpo_batches.carries_signal = carries_signal if skip else (lambda rollouts, size: [True] * len(rollouts.masked))
        trainer = Ours(
            model,
            config,
            engine=ReplayEngine(batch),  # type: ignore[arg-type]
            reward_funcs=[replayed_reward],
            reward_names=["replayed"],
            stop_token_ids=[0],
            tokenizer=build_tokenizer(),
            train_dataset=rows,
            callbacks=[timer],
        )
        trainer.timer = timer
        trainer.share_prompts = share
        trainer.train()


def replayed_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """The reward that stands in the text."""
    return [float(c[0]["content"] if isinstance(c, list) else c) for c in completions]


class Ours(GRPOTrainer):
    """Starts the clock when a step's rollouts are there."""

    timer: StepTimer

    def note_sums(self, sums: dict[str, float]) -> None:
        """As it is, and tells the timer."""
        super().note_sums(sums)
        self.timer.tokens, self.timer.computed = int(sums["tokens"]), int(sums["tokens_computed"])

    def step_sequences(self, rows: Any) -> Any:
        """As it is, then starts the clock."""
        sequences = super().step_sequences(rows)
        self.timer.start()
        return sequences


def run_trl(
    args: argparse.Namespace,
    batch: Batch,
    timer: StepTimer,
    result: Result,
    *,
    checkpointing: bool,
    micro_batch: int,
    attention: str,
) -> None:
    """TRL's stock trainer; completions come through its `rollout_func`."""
    from datasets import Dataset
    from trl import GRPOConfig as TRLConfig
    from trl import GRPOTrainer as TRLTrainer

    class Theirs(ReplayedTRL, TRLTrainer):
        pass

    model = build_model(args.shape, attention, dtype_of(args), DEVICE)
    result.parameters = model.num_parameters()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Theirs(
            model,
            reward_funcs=[replayed],
            args=TRLConfig(
                **training_options(args, checkpointing, folder),
                per_device_train_batch_size=micro_batch,
                gradient_accumulation_steps=args.completions // micro_batch,
                use_liger_kernel=args.trl_liger,
                torch_compile=args.trl_compile,
                disable_tqdm=True,
                logging_steps=10_000,
            ),
            train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(batch.prompts))]}),
            processing_class=build_tokenizer(),
            rollout_func=rollout_function(batch),
            peft_config=lora_config() if args.lora else None,
            callbacks=[timer],
        )
        trainer.timer, trainer.tokens = timer, batch.tokens
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def run_unsloth(
    args: argparse.Namespace,
    batch: Batch,
    timer: StepTimer,
    result: Result,
    *,
    checkpointing: bool,
    micro_batch: int,
    attention: str,
) -> None:
    """TRL's trainer as unsloth rewrites it, in a process of its own; unsloth splits a micro-batch further by itself."""
    options = training_options(args, checkpointing, "") | {
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": args.completions // micro_batch,
    }
    longest = max(map(len, batch.prompts)) + args.cap
    run_unsloth_worker("training_unsloth.py", args, timer, options, attention, longest, {"batch": asdict(batch)})


def cases(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Name, settings and function of each case that the options ask for."""
    for checkpointing in args.checkpointing:
        label = f"checkpointing {'on' if checkpointing else 'off'}"
        if "ours" in args.cases:
            options = (args.compile, args.budget, args.sharing, args.skipping, args.attention)
            for compiled, budget, share, skip, attention in itertools.product(*options):
                settings = {
                    "checkpointing": checkpointing,
                    "compiled": compiled,
                    "share": share,
                    "skip": skip,
                    "budget": budget,
                    "attention": attention,
                }
                flags = [n for n, on in (("compiled", compiled), ("sharing", share), ("skipping", skip)) if on]
                flags += [attention] * (attention != "fastest")
                yield f"ours, {label}, {budget} tokens, {' '.join(flags)}", settings, run_ours
        micro_batches = sorted({min(size, args.completions) for size in args.micro_batch})
        extras = "".join(f", {n}" for n, on in (("liger", args.trl_liger), ("compiled", args.trl_compile)) if on)
        peers = [("trl", "TRL", args.trl_attention, extras, run_trl)]
        peers += [("unsloth", "unsloth", args.unsloth_attention, "", run_unsloth)]
        for case, shown, attentions, more, run in peers:
            for attention, micro_batch in itertools.product(attentions if case in args.cases else [], micro_batches):
                settings = {"checkpointing": checkpointing, "micro_batch": micro_batch, "attention": attention}
                yield f"{shown}, {label}, {attention}, {micro_batch} sequences{more}", settings, run


def switches(text: str) -> list[bool]:
    """`on`, `off` or `both`."""
    return {"on": [True], "off": [False], "both": [True, False]}[text]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="1.5b" if DEVICE == "cuda" else "tiny")
    parser.add_argument("--cases", nargs="+", choices=["ours", "trl", "unsloth"], default=["ours", "trl"])
    parser.add_argument("--weights", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--lora", action="store_true", help="rank 16 on every linear layer")
    parser.add_argument("--checkpointing", type=switches, default="both", help="on, off or both")
    parser.add_argument("--compile", type=switches, default="off", help="on, off or both: compiled decoder layers")
    parser.add_argument("--attention", nargs="+", choices=list(KERNELS), default=["fastest"], help="of Open R1's model")
    parser.add_argument("--sharing", type=switches, default="on", help="on, off or both: prompts computed once a group")
    parser.add_argument(
        "--skipping", type=switches, default="on", help="on, off or both: groups without signal left out"
    )
    parser.add_argument("--no_signal", type=float, default=0.0, help="share of groups whose rewards are equal")
    parser.add_argument("--budget", type=int, nargs="+", default=[16384], help="max_tokens_per_microbatch")
    parser.add_argument("--micro_batch", type=int, nargs="+", default=[8], help="sequences of TRL and unsloth")
    parser.add_argument("--trl_attention", nargs="+", default=["sdpa"], help="attn_implementation of TRL's model")
    parser.add_argument(
        "--trl_liger", action="store_true", help="liger kernels in TRL's model (pip install liger-kernel)"
    )
    parser.add_argument("--trl_compile", action="store_true", help="TRL's model compiled as a whole")
    add_unsloth_options(parser)
    parser.add_argument("--completions", type=int, default=64, help="a step")
    parser.add_argument("--group", type=int, default=8, help="completions a prompt")
    parser.add_argument("--prompts", type=int, nargs=2, default=(80, 200), help="shortest and longest prompt, tokens")
    parser.add_argument("--median", type=float, default=400, help="median completion, tokens")
    parser.add_argument("--mean", type=float, default=555, help="mean completion before the cap, tokens")
    parser.add_argument("--cap", type=int, default=2048, help="longest completion, tokens")
    parser.add_argument("--long", action="store_true", help="median 4,000, mean 5,500, cap 16,384")
    parser.add_argument("--steps", type=int, default=5, help="measured steps a case")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--time_budget", type=float, default=570, help="seconds; later cases are left out")
    parser.add_argument("--profile", type=Path, help="file for a profile of one more step (of the last case)")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.long:
        args.median, args.mean, args.cap = 4000, 5500, 16384
    check_unsloth_options(parser, args)
    for size in args.micro_batch if {"trl", "unsloth"} & set(args.cases) else []:
        if size < args.completions and args.completions % size:
            parser.error(f"--micro_batch {size} does not divide --completions {args.completions}")
    return args


def main(argv: list[str] | None = None) -> list[Result]:
    """Measures every case; returns the results."""
    args = parse(argv)
    deadline = time.monotonic() + args.time_budget
    if "trl" in args.cases and find_spec("trl") is None:
        print("TRL is not installed, so it is not measured: pip install trl==1.16.0")
        args.cases.remove("trl")
    batch = draw_batch(args)
    longest = max(len(c) for group in batch.completions for c in group)
    print(
        f"{args.completions} completions, {batch.tokens:,} tokens with their prompts, longest {longest:,}", flush=True
    )
    results = []
    for name, settings, run in cases(args):
        if time.monotonic() > deadline:
            print(f"{name}: left out, the time budget is spent")
            continue
        result = Result(name, {k: str(v) for k, v in vars(args).items()} | settings)
        timer = StepTimer(result, args.steps, args.warmup, deadline, args.profile)

        def case(result: Result, run: Any = run, settings: Any = settings, timer: StepTimer = timer) -> None:
            run(args, batch, timer, result, **settings)

        results.append(measured(result, case))
        report(result, args.results)
    return results


if __name__ == "__main__":
    main()
