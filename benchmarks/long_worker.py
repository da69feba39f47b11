"""The process that `long.py` starts: builds a model and measures one case after another with it."""

import contextlib
import random
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import torch
from datasets import Dataset
from measure import SHAPES, Result, StepTimer, build_model, build_tokenizer, environment, measured
from sft import Ours as OursSFT
from training import DEVICE, Batch, ReplayEngine, replayed_reward
from training import Ours as OursGRPO

from open_r1.configs import GRPOConfig, ModelConfig, SFTConfig
from open_r1.errors import UserError
from open_r1.internals.accelerate import unprepare
from open_r1.modeling import flash
from open_r1.modeling.attention import ATTENTION, SDPA_ATTENTION, VARLEN_ATTENTION, use_varlen
from open_r1.modeling.compiling import compile_layers
from open_r1.modeling.mlp import ChunkedMLP, chunk_mlps, unchunk_mlps
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.sft import packed_rows

CHUNK = 4096
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "chunks": {"mlp_chunk_tokens": CHUNK},
    "offload": {"mlp_chunk_tokens": CHUNK, "activation_offloading": True},
    "8bit": {"mlp_chunk_tokens": CHUNK, "activation_offloading": True, "optim": "adamw_8bit"},
    "paged": {"mlp_chunk_tokens": CHUNK, "activation_offloading": True, "optim": "paged_adamw_8bit"},
}
"""What each adds to gradient checkpointing and packs of 16,384 tokens, or of one sequence that is longer."""
FLASH = "flash_attention_4"
PROMPT = 128
WARM_UP = 2048
"""Most tokens of a sequence in the step before the measured ones."""


def name(case: dict[str, Any]) -> str:
    """As the table has it."""
    extras = [case["setting"], "compiled" if case["compiled"] else "", case["attention"] or ""]
    sequences = f"{case['count']} x {case['length']:,}"
    return f"{case['shape']} {case['train']}, {case['task']} {sequences}, {', '.join(filter(None, extras))}"


def longest(row: dict[str, Any]) -> int:
    """Tokens of a sequence with its prompt."""
    return row["length"] + (PROMPT if row["task"] == "grpo" else 0)


def config_of(case: dict[str, Any], folder: str, **options: Any) -> tuple[Any, ModelConfig]:
    """The configurations of a case."""
    common: dict[str, Any] = {
        "output_dir": folder,
        "optim": "adamw_torch_fused",
        "max_steps": 10_000,
        "learning_rate": 1e-6,
        "per_device_train_batch_size": case["count"],
        "bf16": DEVICE == "cuda",
        "use_cpu": DEVICE == "cpu",
        "report_to": "none",
        "save_strategy": "no",
        **SETTINGS[case["setting"]],
        **options,
    }
    model = ModelConfig(
        model_name_or_path=case["shape"], use_peft=case["train"] == "lora", attn_implementation=case["attention"]
    )
    if case["task"] == "sft":
        return SFTConfig(max_length=case["length"], **common), model
    common |= {"num_generations": case["count"], "shuffle_dataset": False}
    return GRPOConfig(max_completion_length=case["length"], **common), model


class ShortFirst(OursSFT):
    """Learns from the beginnings of documents until the timer measures."""

    def step_sequences(self, rows: Any) -> Any:
        """As it is, for the beginnings of documents."""
        if self.timer.seen < self.timer.warmup:
            rows = [[{name: column[:WARM_UP] for name, column in doc.items()} for doc in row] for row in rows]
        return super().step_sequences(rows)


class Policy:
    """A model with random weights, made on the device, that one trainer after another trains."""

    def __init__(self, case: dict[str, Any]) -> None:
        names = {"sdpa": SDPA_ATTENTION, "varlen": VARLEN_ATTENTION}
        attention = names.get(case["attention"], ATTENTION)
        model: Any = build_model(case["shape"], attention, torch.float32, DEVICE)
        self.attention = kernel_of(attention, model.config.hidden_size // model.config.num_attention_heads)
        if case["attention"] not in (None, self.attention):
            raise UserError(f"--attention is {case['attention']}, and {self.attention} is what runs here.")
        self.parameters = model.num_parameters()
        add_logprob_forward(model)
        chunk_mlps(model, CHUNK)
        self.chunked = {mlp: type(mlp) for mlp in model.modules() if isinstance(mlp, ChunkedMLP)}
        if case["compiled"]:
            compile_layers(model)
        if case["train"] == "lora":
            from peft import LoraConfig, get_peft_model

            rank = config_of(case, "runs/none")[1].lora_r
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules="all-linear"))
        self.model = model
        self.forwards = {key: value for key, value in vars(model).items() if key == "forward"}

    def reset(self, chunks: bool) -> None:
        """Removes gradients and what the last trainer wrapped around the forward pass."""
        self.model.zero_grad(set_to_none=True)
        unprepare(self.model)
        vars(self.model).update(self.forwards)
        unchunk_mlps(self.model)
        if chunks:
            for mlp, kind in self.chunked.items():
                mlp.__class__ = kind


def kernel_of(attention: str, head_size: int) -> str:
    """Which attention runs on packs of heads of that size, by the name of `attn_implementation`."""
    probe = torch.empty(1, 1, head_size, device=DEVICE, dtype=torch.bfloat16 if DEVICE == "cuda" else torch.float32)
    if attention == ATTENTION and flash.fits(probe, probe):
        return FLASH
    return "varlen" if attention != SDPA_ATTENTION and use_varlen(probe, probe) else "sdpa"


def trainer_of(case: dict[str, Any], policy: Policy, timer: StepTimer, folder: str) -> Any:
    """A trainer whose first steps (`timer.warmup`) are short."""
    rng, vocabulary, length, count = random.Random(0), SHAPES[case["shape"]][5], case["length"], case["count"]
    args, _ = config_of(case, folder)

    def tokens(number: int) -> list[int]:
        return rng.choices(range(2, vocabulary), k=number)  # none ends a text

    rest: dict[str, Any] = {"tokenizer": build_tokenizer(), "callbacks": [timer]}
    steps = timer.warmup + timer.steps
    if case["task"] == "sft":
        ids = [tokens(length) for _ in range(count * steps)]
        data = Dataset.from_dict({"input_ids": ids, "loss_mask": [[0] + [1] * (length - 1)] * len(ids)})
        trainer: Any = ShortFirst(policy.model, args, train_dataset=packed_rows(data, args), **rest)
    else:
        sizes = [min(length, WARM_UP)] * timer.warmup + [length] * timer.steps
        batch = Batch(
            prompts=[tokens(PROMPT) for _ in sizes],
            completions=[[tokens(size) for _ in range(count)] for size in sizes],
            rewards=[[float(i % 2) for i in range(count)]] * len(sizes),
        )
        row = {"prompt": [{"role": "user", "content": ""}], "prompt_text": ""}
        trainer = OursGRPO(
            policy.model,
            args,
            engine=ReplayEngine(batch),  # type: ignore[arg-type]
            reward_funcs=[replayed_reward],
            reward_names=["replayed"],
            stop_token_ids=[0],
            train_dataset=[row | {"prompt_ids": prompt} for prompt in batch.prompts],
            **rest,
        )
    trainer.timer = timer
    return trainer


def moment_of(error: BaseException, timer: StepTimer) -> str:
    """Where in a step memory ran out."""
    frames = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    part = "the backward pass" if "backward" in frames else "the optimizer" if "step" in frames else "the forward pass"
    return part if timer.seen >= timer.warmup else f"{part} of the short step"


class Cases:
    """Measures cases of one model, which is built for the first of them."""

    def __init__(self) -> None:
        self.policy: Policy | None = None
        self.pinned = 0
        """Size of the blocks of pinned memory that `pin_memory` has allocated."""

    def measure(self, case: dict[str, Any], steps: int) -> dict[str, Any]:
        """The result of a case."""
        result = Result(name(case), case)
        timer = StepTimer(result, steps, warmup=1, deadline=float("inf"))
        figures: dict[str, Any] = {}

        def run(_: Result) -> None:
            self.policy = self.policy or Policy(case)
            if DEVICE == "cuda" and SETTINGS[case["setting"]].get("activation_offloading"):
                figures["pinning_seconds"] = self.pin_memory(case, self.policy.model.config)
            result.parameters, figures["attention"] = self.policy.parameters, self.policy.attention
            self.policy.reset(chunks="mlp_chunk_tokens" in SETTINGS[case["setting"]])
            with tempfile.TemporaryDirectory() as folder:
                trainer = trainer_of(case, self.policy, timer, folder)
                try:
                    trainer.train()
                except UserError as error:
                    if isinstance(error.__cause__, torch.OutOfMemoryError):
                        figures["ran_out_in"] = moment_of(error.__cause__, timer)
                        raise error.__cause__ from None
                    raise

        measured(result, run)
        if self.policy is not None:
            self.policy.reset(chunks=False)
        if "ran_out_in" in figures and result.error is not None:
            result.error = result.error.replace("out of memory:", f"out of memory in {figures['ran_out_in']}:", 1)
        return vars(result) | result.figures() | figures | environment()

    def pin_memory(self, case: dict[str, Any], config: Any) -> float:
        """Has PyTorch hold pinned memory for the checkpoint of every layer, so that the first long step does not wait
        for it; returns the seconds. PyTorch reuses a block only for tensors that round up to the same power of two, so
        blocks of another size are freed first."""
        began, size = time.perf_counter(), 4 * config.hidden_size * longest(case)
        block = 1 << (size - 1).bit_length()
        if block != self.pinned:
            empty_host_cache()
            buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(config.num_hidden_layers)]
            del buffers
            self.pinned = block
        return round(time.perf_counter() - began, 2)


def empty_host_cache() -> None:
    """Frees the pinned memory that PyTorch holds."""
    if hasattr(torch.accelerator, "empty_host_cache"):
        torch.accelerator.empty_host_cache()
    elif hasattr(torch._C, "_host_emptyCache"):  # its name before
        torch._C._host_emptyCache()


def serve(connection: Connection) -> None:
    """Answers each `(case, steps)` with its result until the other end closes."""
    cases = Cases()
    with contextlib.suppress(EOFError):
        while True:
            connection.send(cases.measure(*connection.recv()))
