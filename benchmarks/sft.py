"""Measures supervised fine-tuning on packed documents, here, in TRL and in unsloth.

    python benchmarks/sft.py --shape 1.5b --data traces.jsonl.gz --tokenizer <folder or hub id>     # one GPU
    python benchmarks/sft.py --shape tiny --max_length 1024 --median 150 --mean 200                 # CPU
    python benchmarks/sft.py --shape 7b --lora --cases ours trl unsloth --unsloth_path <folder>     # LoRA of rank 16

Documents are the rows of --data (their `messages`, else `text`), tokenized, or random tokens of log-normal length;
every trainer gets the same ones, packed best-fit into rows of --max_length tokens, --rows of them a step. The model
has random weights. TRL (1.16.0) is measured if it is installed; with sdpa a mask keeps its packed documents apart,
with a flash attention package (--trl_attention) their positions do. unsloth (2026.10.9) wants other versions of TRL
and datasets: install them into a folder for --unsloth_path (see unsloth_process.py). Results are printed, and appended
to --results, as they come. TFLOP/s count 6 N a token, with LoRA too, where frozen weights need only 4 N.
"""

import argparse
import gzip
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
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
from training import KERNELS, switches
from transformers import AutoTokenizer
from transformers.trainer_callback import PrinterCallback
from unsloth_process import add_unsloth_options, check_unsloth_options, run_unsloth_worker

from open_r1.configs import SFTConfig
from open_r1.modeling.compiling import compile_layers
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.sft import SFTTrainer, packed_rows


def documents(args: argparse.Namespace) -> list[list[int]]:
    """Token ids, at most `max_length` of each document; ids beyond the shape's vocabulary wrap around."""
    vocabulary = SHAPES[args.shape][5]
    if args.data is None:
        rng = random.Random(args.seed)
        lengths = draw_lengths(args.documents, args.median, args.mean, args.max_length, args.seed)
        return [[rng.randrange(2, vocabulary) for _ in range(max(n, 2))] for n in lengths]
    content = args.data.read_bytes()
    lines = (gzip.decompress(content) if args.data.suffix == ".gz" else content).splitlines()
    rows = [json.loads(line) for line in lines]
    texts = ["\n".join(m["content"] for m in row["messages"]) if "messages" in row else row["text"] for row in rows]
    ids = AutoTokenizer.from_pretrained(args.tokenizer)(texts)["input_ids"]
    return [[i % vocabulary for i in row[: args.max_length]] for row in ids]


def training_options(args: argparse.Namespace, checkpointing: bool, folder: str) -> dict[str, Any]:
    """Options that every trainer gets."""
    return {
        "output_dir": folder,
        "max_steps": 10_000,
        "packing": True,
        "max_length": args.max_length,
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
        "bf16": DEVICE == "cuda",
        "use_cpu": DEVICE == "cpu",
        "optim": "adamw_torch_fused",
        "report_to": "none",
        "save_strategy": "no",
    }


class Ours(SFTTrainer):
    """Tells the timer how many tokens a step had."""

    timer: StepTimer

    def note_sums(self, sums: dict[str, float]) -> None:
        """As it is, and tells the timer."""
        super().note_sums(sums)
        self.timer.tokens, self.timer.computed = int(sums["tokens"]), int(sums["tokens_computed"])


def run_ours(
    args: argparse.Namespace,
    data: list[list[int]],
    timer: StepTimer,
    *,
    checkpointing: bool,
    compiled: bool,
    attention: str,
) -> None:
    """Open R1's trainer."""
    model = build_model(args.shape, KERNELS[attention], dtype_of(args), DEVICE)
    timer.result.parameters = model.num_parameters()
    add_logprob_forward(model)
    if args.lora:
        from peft import get_peft_model

        model = get_peft_model(model, lora_config())
    if compiled:
        compile_layers(model)
    learned = [[0] + [1] * (len(ids) - 1) for ids in data]
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            **training_options(args, checkpointing, folder),
            per_device_train_batch_size=args.rows,
            max_tokens_per_microbatch=args.budget,
            torch_compile=compiled,
        )
        rows = packed_rows(Dataset.from_dict({"input_ids": data, "loss_mask": learned}), config)
        trainer = Ours(model, config, tokenizer=build_tokenizer(), train_dataset=rows, callbacks=[timer])
        trainer.timer = timer
        trainer.train()


def run_trl(
    args: argparse.Namespace, data: list[list[int]], timer: StepTimer, *, checkpointing: bool, attention: str
) -> None:
    """TRL's trainer with packing (best-fit decreasing), one row a micro-batch."""
    from trl import SFTConfig as TRLConfig
    from trl import SFTTrainer as TRLTrainer

    class Theirs(TRLTrainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            timer.tokens += inputs["input_ids"].numel()
            timer.computed = timer.tokens
            return super().training_step(model, inputs, num_items_in_batch)

    model = build_model(args.shape, attention, dtype_of(args), DEVICE)
    timer.result.parameters = model.num_parameters()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Theirs(
            model,
            args=TRLConfig(
                **training_options(args, checkpointing, folder),
                per_device_train_batch_size=1,
                gradient_accumulation_steps=args.rows,
                use_liger_kernel=args.trl_liger,
                torch_compile=args.trl_compile,
                disable_tqdm=True,
                logging_steps=10_000,
            ),
            train_dataset=Dataset.from_dict({"input_ids": data}),
            processing_class=build_tokenizer(),
            peft_config=lora_config() if args.lora else None,
            callbacks=[timer],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def run_unsloth(
    args: argparse.Namespace, data: list[list[int]], timer: StepTimer, *, checkpointing: bool, attention: str
) -> None:
    """unsloth's trainer with packing, one row a micro-batch."""
    options = training_options(args, checkpointing, "") | {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": args.rows,
    }
    run_unsloth_worker("sft_unsloth.py", args, timer, options, attention, args.max_length, {"documents": data})


def cases(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Name, settings and function of each case that the options ask for."""
    for checkpointing in args.checkpointing:
        label = f"checkpointing {'on' if checkpointing else 'off'}"
        if "ours" in args.cases:
            for compiled, attention in itertools.product(args.compile, args.attention):
                settings = {"checkpointing": checkpointing, "compiled": compiled, "attention": attention}
                flags = [n for n, on in ((", compiled", compiled), (", varlen", attention == "varlen")) if on]
                yield f"ours, {label}{''.join(flags)}", settings, run_ours
        if "trl" in args.cases:
            extras = "".join(f", {n}" for n, on in (("liger", args.trl_liger), ("compiled", args.trl_compile)) if on)
            for attention in args.trl_attention:
                settings = {"checkpointing": checkpointing, "attention": attention}
                yield f"TRL, {label}, {attention}{extras}", settings, run_trl
        if "unsloth" in args.cases:
            for attention in args.unsloth_attention:
                settings = {"checkpointing": checkpointing, "attention": attention}
                yield f"unsloth, {label}, {attention}", settings, run_unsloth


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
    parser.add_argument("--trl_attention", nargs="+", default=["sdpa"], help="attn_implementation of TRL's model")
    parser.add_argument(
        "--trl_liger", action="store_true", help="liger kernels in TRL's model (pip install liger-kernel)"
    )
    parser.add_argument("--trl_compile", action="store_true", help="TRL's model compiled as a whole")
    add_unsloth_options(parser)
    parser.add_argument("--data", type=Path, help=".jsonl or .jsonl.gz with `messages` or `text`")
    parser.add_argument("--tokenizer", help="folder or hub id, for --data")
    parser.add_argument("--documents", type=int, default=256, help="without --data")
    parser.add_argument("--median", type=float, default=5000, help="median document, tokens; without --data")
    parser.add_argument("--mean", type=float, default=6500, help="mean document, tokens; without --data")
    parser.add_argument("--max_length", type=int, default=16384, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=4, help="rows a step")
    parser.add_argument("--budget", type=int, default=16384, help="max_tokens_per_microbatch")
    parser.add_argument("--steps", type=int, default=5, help="measured steps a case")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--time_budget", type=float, default=570, help="seconds; later cases are left out")
    parser.add_argument("--profile", type=Path, help="file for a profile of one more step (of the last case)")
    parser.add_argument("--results", type=Path, help="file that result lines are appended to")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.data is not None and args.tokenizer is None:
        parser.error("--data needs --tokenizer")
    check_unsloth_options(parser, args)
    return args


def main(argv: list[str] | None = None) -> None:
    """Measures every case."""
    args = parse(argv)
    deadline = time.monotonic() + args.time_budget
    if "trl" in args.cases and find_spec("trl") is None:
        print("TRL is not installed, so it is not measured: pip install trl==1.16.0")
        args.cases.remove("trl")
    data = documents(args)
    print(f"{len(data)} documents, {sum(map(len, data)):,} tokens, longest {max(map(len, data)):,}", flush=True)
    for name, settings, run in cases(args):
        if time.monotonic() > deadline:
            print(f"{name}: left out, the time budget is spent")
            continue
        result = Result(name, {k: str(v) for k, v in vars(args).items()} | settings)
        timer = StepTimer(result, args.steps, args.warmup, deadline, args.profile)

        def case(_: Result, run: Any = run, settings: Any = settings, timer: StepTimer = timer) -> None:
            run(args, data, timer, **settings)

        report(measured(result, case), args.results)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
