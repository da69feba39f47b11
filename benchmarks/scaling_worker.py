"""A process of a case of `scaling.py`: a trainer on random tokens, whose steps are timed."""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import torch
from long_worker import ShortFirst
from measure import Result, StepTimer, build_model, build_tokenizer, environment, measured
from sft import Ours as OursSFT
from sft import documents
from torch import Tensor
from training import Ours as OursGRPO
from training import ReplayEngine, draw_batch, replayed_reward

from open_r1.configs import GRPOConfig, SFTConfig, TrainConfig
from open_r1.modeling.attention import ATTENTION
from open_r1.modeling.compiling import compile_layers
from open_r1.training.deepspeed_setup import prepare_deepspeed
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packed_trainer import PackedTrainer
from open_r1.training.sft import packed_rows


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
        "max_steps": args.warmup + args.steps + args.profile,
        "learning_rate": 1e-6,
        "gradient_checkpointing": args.checkpointing == "on",
        "max_tokens_per_microbatch": args.budget,
        "sequence_parallel_size": args.share,
        "torch_compile": args.compile == "on",
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
    """The trainer of `args.task`, over all processes. Processes that share packs count as one."""
    processes = int(os.environ.get("WORLD_SIZE", "1")) // args.share
    common: dict[str, Any] = {"tokenizer": build_tokenizer(), "callbacks": [timer]}
    if args.task == "sft":
        args.data, args.documents = None, 16 * args.rows * processes  # enough to fill the rows
        if args.length:  # one document fills a row
            args.rows, args.documents = 1, processes
            args.max_length, args.median, args.mean = args.length, args.length, args.length
        sft_config = SFTConfig(
            **options(args, folder), per_device_train_batch_size=args.rows, packing=True, max_length=args.max_length
        )
        from datasets import Dataset

        ids = documents(args)
        learned = [[0] + [1] * (len(row) - 1) for row in ids]
        rows = packed_rows(Dataset.from_dict({"input_ids": ids, "loss_mask": learned}), sft_config)
        kind = ShortFirst if args.length else OursSFT
        trainer: Any = kind(policy(args, sft_config, timer.result), sft_config, train_dataset=rows, **common)
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
        self.rank = int(os.environ.get("RANK", "0"))
        self.file = args.worker / f"{self.rank}.json"
        profile = args.worker / f"{self.rank}.profile" if args.profile else None
        super().__init__(result, args.steps, args.warmup, deadline=float("inf"), profile_to=profile)
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
            figures = vars(self.result) | self.result.figures() | self.extra | environment() | {"peak_gib": peak_gib()}
            new = self.file.with_suffix(".new")
            new.write_text(json.dumps(figures))
            new.replace(self.file)


def peak_gib() -> float:
    """Peak memory of this process so far: on its GPU, or all of it on a CPU."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def work(args: argparse.Namespace) -> None:
    """One case, in each of its processes."""
    prepare_deepspeed()
    args.worker.mkdir(exist_ok=True)
    result = Result(args.case, {k: str(v) for k, v in vars(args).items()})
    timer = ReportingTimer(result, args)

    def run(result: Result) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer, engine = build_trainer(args, timer, folder)
            timer.say(f"{args.case}: model and trainer are there ({trainer.backend})")
            trainer.train()
            timer.extra |= {"backend": trainer.backend, "gather_seconds": engine.seconds}
            if trainer.backend.startswith("zero"):
                trainer.model_wrapped.destroy()  # frees what the next case needs

    measured(result, run)
    timer.write()
    if result.error:
        os._exit(1)  # torchrun then ends the other processes, which wait for this one
