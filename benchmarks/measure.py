"""What the training benchmarks share: model shapes with random weights, lengths, a step timer, and result lines."""

import argparse
import gc
import json
import math
import random
import statistics
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, TrainerCallback

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PEAK = 790e12
"""FLOP/s that a large bfloat16 product reaches on an H100 or H200."""

SHAPES = {
    "tiny": (64, 176, 2, 4, 2, 512, True),
    "small": (256, 704, 4, 4, 2, 4096, True),
    "135m": (576, 1536, 30, 9, 3, 49152, True),
    "1.5b": (1536, 8960, 28, 12, 2, 151936, True),
    "7b": (3584, 18944, 28, 28, 4, 152064, False),
}
"""Hidden and MLP width, layers, heads, key-value heads, vocabulary, tied embeddings."""


def build_model(shape: str, attention: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A Qwen2 of that shape with random weights, made on the device: nothing is downloaded."""
    width, mlp, layers, heads, kv_heads, vocabulary, tied = SHAPES[shape]
    config = Qwen2Config(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)


def dtype_of(args: argparse.Namespace) -> torch.dtype:
    """Dtype of the weights."""
    return torch.bfloat16 if args.weights == "bfloat16" and DEVICE == "cuda" else torch.float32


def lora_config() -> Any:
    """LoRA of rank 16 on every linear layer except the head."""
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=16, target_modules="all-linear")


def memory_bandwidth() -> float:
    """Bytes/s that the GPU's memory (or the machine's) reaches, read and written, when a large tensor is copied."""
    on_gpu = torch.cuda.is_available()
    source = torch.ones(2**30 if on_gpu else 2**27, dtype=torch.uint8, device="cuda" if on_gpu else "cpu")
    target = torch.empty_like(source)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        target.copy_(source)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * source.numel() / min(seconds)


def end_sometimes(model: PreTrainedModel, end: int, mean: float, seed: int = 0) -> None:
    """Has a model with random weights end its completions, after about `mean` tokens: the output row of token `end`
    points along the mean of the hidden states of random text, as long as gives it a probability of 1 / mean there."""
    head: Any = model.get_output_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, min(head.shape[0], 32768), (64, 160), generator=generator).to(head.device)
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[:, 32:].float()
        direction = hidden[:48].flatten(0, 1).mean(0)
        unseen = hidden[48:].flatten(0, 1)
        others = (unseen @ head.float().T).logsumexp(-1)
        projected = unseen @ direction
        low, high = 0.0, 1e3 / float(projected.abs().mean())
        for _ in range(60):
            scale = (low + high) / 2
            too_often = float((scale * projected - others).sigmoid().mean()) > 1 / mean
            low, high = (low, scale) if too_often else (scale, high)
        head[end] = (scale * direction).to(head.dtype)
    model.config.eos_token_id = end


def coin_reward(completions: list[Any], **_: Any) -> list[float]:
    """A reward that random text gets half the time, so that every group has something to learn from."""
    return [float(zlib.crc32(str(completion).encode()) % 2) for completion in completions]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer for trainers that want one; no text is tokenized."""
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.WordLevel({"<end>": 0, "<unknown>": 1}, unk_token="<unknown>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")


def draw_lengths(count: int, median: float, mean: float, cap: int, seed: int = 0) -> list[int]:
    """Log-normal lengths with that median and, before the cap, that mean."""
    spread = math.sqrt(2 * math.log(mean / median))
    rng = random.Random(seed)
    return [min(cap, max(1, round(median * math.exp(spread * rng.gauss(0, 1))))) for _ in range(count)]


@dataclass
class Result:
    """One measured case: for each measured step its seconds, its real `tokens` (every document, or prompt with
    completion, in full) and those of them that were `computed`."""

    case: str
    settings: dict[str, Any]
    parameters: int = 0
    tokens: list[int] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    peak_gib: float | None = None
    error: str | None = None

    def figures(self) -> dict[str, Any]:
        """Median tokens/s and its range over the steps, and TFLOP/s by 6 N a computed token."""
        if not self.seconds:
            return {}
        rates = sorted(n / s for n, s in zip(self.tokens, self.seconds, strict=True))
        flops = 6 * self.parameters * sum(self.computed) / sum(self.seconds)
        return {
            "tokens_per_second": round(statistics.median(rates)),
            "range": [round(rates[0]), round(rates[-1])],
            "tflops": round(flops / 1e12, 1),
            "share_of_peak": round(flops / PEAK, 3),
        }


class StepTimer(TrainerCallback):
    """Times steps of a `transformers.Trainer` from `start()`, or else from their beginning, to the end of the
    optimizer step, after `warmup` steps; ends the run after `steps` of them or at `deadline` (`time.monotonic`).

    `tokens` and `computed` are set by whoever knows them before a step ends.
    """

    def __init__(
        self, result: Result, steps: int, warmup: int, deadline: float, profile_to: Path | None = None
    ) -> None:
        self.result = result
        self.steps, self.warmup, self.deadline, self.profile_to = steps, warmup, deadline, profile_to
        self.tokens = 0
        self.computed = 0
        self.seen = 0
        self.began = 0.0
        self.profiler: Any = None

    def start(self) -> None:
        """Called when the data of a step are there, before its first forward pass."""
        if self.profile_to is not None and self.profiler is None and self.seen == self.warmup + self.steps:
            self.profiler = torch.profiler.profile()
            self.profiler.__enter__()
        synchronize()
        self.began = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock, and the count of tokens."""
        self.tokens = self.computed = 0
        self.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops the clock."""
        synchronize()
        seconds = time.perf_counter() - self.began
        self.seen += 1
        if self.profiler is not None:
            self.profiler.__exit__(None, None, None)
            self._write_profile()
        elif self.seen > self.warmup:
            self.result.seconds.append(seconds)
            self.result.tokens.append(self.tokens)
            self.result.computed.append(self.computed)
        wanted = self.warmup + self.steps + (self.profile_to is not None)
        control.should_training_stop = self.seen >= wanted or (
            time.monotonic() > self.deadline and bool(self.result.seconds)
        )

    def _write_profile(self) -> None:
        assert self.profile_to is not None
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self.profiler.key_averages().table(sort_by=key, row_limit=40, max_name_column_width=70)
        self.profile_to.write_text(table)
        print(table)


def measured(result: Result, run: Callable[[Result], None]) -> Result:
    """Runs one case with memory counted; what it raises, out of memory above all, becomes the case's error."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        result.settings["gib_before"] = round(torch.cuda.memory_allocated() / 2**30, 2)
    try:
        run(result)
    except torch.OutOfMemoryError as error:
        result.error = f"out of memory: {str(error).splitlines()[0][:200]}"
    except Exception as error:
        traceback.print_exc()
        result.error = f"{type(error).__name__}: {str(error)[:300]}"
    if torch.cuda.is_available() and result.peak_gib is None:
        result.peak_gib = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return result


def report(result: Result, path: Path | None) -> None:
    """Prints a line, and appends it to `path` as JSON."""
    line = asdict(result) | result.figures()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(line | environment()) + "\n")
    memory = "" if result.peak_gib is None else f"  peak {result.peak_gib:.1f} GiB"
    if result.error is not None:
        print(f"{result.case:<44} {result.error}{memory}", flush=True)
        return
    low, high = line["range"]
    print(
        f"{result.case:<44} {line['tokens_per_second']:>8,} tokens/s ({low:,} to {high:,})  "
        f"{line['tflops']:.1f} TFLOP/s ({line['share_of_peak']:.1%} of 790){memory}",
        flush=True,
    )


def environment() -> dict[str, str]:
    """Versions and device, for a result line."""
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"torch": torch.__version__, "transformers": transformers.__version__, "device": device}


def synchronize() -> None:
    """Waits for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
