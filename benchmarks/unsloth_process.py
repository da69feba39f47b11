"""Runs unsloth's case of a benchmark in a process of its own, because unsloth replaces classes of transformers and TRL.

The process gets a folder with the model, its tokenizer and `case.json`, and leaves `result.json` there. unsloth runs
from a folder of its own (`--unsloth_path`), beside the torch and transformers that are installed:

    pip install --no-deps --target <folder> unsloth==2026.10.9 unsloth_zoo==2026.10.9 trl==1.15.0 datasets==4.8.5 \\
        dill multiprocess cut_cross_entropy torchao msgspec tyro docstring_parser typeguard einops bitsandbytes

Its other requirements (xformers, hf_transfer, diffusers, structlog, json5, nest-asyncio) are not needed for this.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from measure import DEVICE, Result, StepTimer, build_model, build_tokenizer, dtype_of, lora_config, measured
from transformers.trainer_callback import PrinterCallback

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def add_unsloth_options(parser: argparse.ArgumentParser) -> None:
    """Options of a benchmark that has a case of unsloth."""
    parser.add_argument("--unsloth_path", type=Path, help="folder with unsloth and the packages it wants")
    parser.add_argument(
        "--unsloth_attention",
        nargs="+",
        choices=["auto", "fa3", "fa4", "off"],
        default=["auto"],
        help="UNSLOTH_FLASH_ATTENTION_IMPL; auto uses torch's own kernels below a width of 2,048 on Hopper",
    )


def check_unsloth_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where unsloth is asked for without LoRA."""
    if "unsloth" in args.cases and not args.lora:
        parser.error("--cases unsloth needs --lora")


def run_unsloth_worker(
    worker: str,
    args: argparse.Namespace,
    timer: StepTimer,
    options: dict[str, Any],
    attention: str,
    max_length: int,
    data: dict[str, Any],
) -> None:
    """Measures in a process that runs `worker`, a file beside this one, and fills the timer's result.

    `options` are the trainer's, without its folder; `data` is what else the worker finds in its case. No sequence is
    longer than `max_length` tokens.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build_model(args.shape, "sdpa", dtype_of(args), DEVICE)
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        dtype = str(model.dtype).removeprefix("torch.")
        del model
        gc.collect()
        torch.cuda.empty_cache()
        case = {
            "options": options | {"output_dir": name, "disable_tqdm": True, "logging_steps": 10_000},
            "dtype": dtype,
            "max_length": max_length,
            "steps": timer.steps,
            "warmup": timer.warmup,
            "seconds": timer.deadline - time.monotonic(),
        }
        (folder / "case.json").write_text(json.dumps(case | data))
        path = [str(args.unsloth_path.resolve())] if args.unsloth_path else []
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]),
            "UNSLOTH_DISABLE_STATISTICS": "1",
            "UNSLOTH_FLASH_ATTENTION_IMPL": attention,
            "HF_HUB_OFFLINE": "1",
        }
        script = Path(__file__).resolve().with_name(worker)
        subprocess.run([sys.executable, str(script), name], env=environment, cwd=folder, check=True)
        found = json.loads((folder / "result.json").read_text())
    for field in ("parameters", "tokens", "computed", "seconds", "peak_gib", "error"):
        setattr(timer.result, field, found[field])


def run_worker(folder: Path, build_trainer: Callable[..., Any]) -> None:
    """The process: trains LoRA with `build_trainer(case, model, tokenizer, timer)` until the timer has its steps."""
    case = json.loads((folder / "case.json").read_text())

    def run(result: Result) -> None:
        model, tokenizer = lora_model(folder, case, result)
        timer = StepTimer(result, case["steps"], case["warmup"], time.monotonic() + case["seconds"])
        trainer = build_trainer(case, model, tokenizer, timer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    (folder / "result.json").write_text(json.dumps(asdict(measured(Result("", {}), run))))


def lora_model(folder: Path, case: dict[str, Any], result: Result) -> tuple[Any, Any]:
    """The folder's model with LoRA, and its tokenizer, both as unsloth loads them; notes the model's size."""
    from unsloth import FastLanguageModel

    checkpointing = "unsloth" if case["options"]["gradient_checkpointing"] else False
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(folder),
        max_seq_length=case["max_length"],
        dtype=getattr(torch, case["dtype"]),
        load_in_4bit=False,
        use_gradient_checkpointing=checkpointing,
        local_files_only=True,
    )
    result.parameters = model.num_parameters()
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora_config().r,
        lora_alpha=lora_config().lora_alpha,
        target_modules=LINEAR,
        use_gradient_checkpointing=checkpointing,
    )
    return model, tokenizer
