"""Does GRPO stay as it is? Minutes of it, killed (SIGKILL) and started again once, with the memory at every step.

    python benchmarks/soak.py --model SmolLM2-135M-Instruct --data gsm8k_train.jsonl.gz --minutes 8

A step has `--prompts` prompts with 16 completions of at most `--tokens` tokens, and a checkpoint is saved every 10
steps. Prints, for each of the two processes, first and last value and slope a step (least squares, without the first 3
steps) of allocated and reserved GPU memory, of the engine's free pages between rounds, and of the mean difference of
the logprobs of sampler and trainer.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

SKIPPED = 3
SHOWN = 25
"""Lines of the log, if there was no step."""


class Watch(TrainerCallback):
    """Appends a line a step to `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What there is to see after a step."""
        cuda = torch.cuda.is_available()
        line = {
            "step": state.global_step,
            "allocated MiB": torch.cuda.memory_allocated() / 2**20 if cuda else 0.0,
            "reserved MiB": torch.cuda.memory_reserved() / 2**20 if cuda else 0.0,
            "free pages": self.trainer.engine.loop.scheduler.pool.free,
            "logprob difference": self.trainer._step_metrics.get("sampling/logprob_difference", [float("nan")])[-1],
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def run(args: argparse.Namespace) -> None:
    """`open-r1 grpo`, watched."""
    import open_r1.grpo
    import open_r1.run.trainers
    from open_r1.run.trainers import GRPOTrainer

    watch = Watch(args.lines)

    class Watched(GRPOTrainer):
        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, callbacks=[watch], **named)
            watch.trainer = self

    open_r1.run.trainers.GRPOTrainer = Watched  # type: ignore[misc]
    options = {
        "model_name_or_path": args.model,
        "dataset_name": args.data,
        "dataset_prompt_column": "problem",
        "reward_funcs": "[accuracy, format]",
        "output_dir": args.output,
        "engine": "native",
        "vllm_gpu_memory_utilization": 0.1,
        "per_device_train_batch_size": args.prompts * 16,
        "num_generations": 16,
        "max_completion_length": args.tokens,
        "gradient_checkpointing": False,
        "learning_rate": 1e-6,
        "num_train_epochs": 1000,
        "save_steps": 10,
        "save_total_limit": 2,
        "report_to": "none",
    }
    open_r1.grpo.main([f"--{name}={value}" for name, value in options.items()])


def until(child: subprocess.Popen, seconds: float, ready: Any = lambda: True) -> bool:
    """Waits `seconds`, and then for what must be `ready`; kills the child. Returns whether it was not interrupted."""
    end = time.monotonic() + seconds
    try:
        while child.poll() is None and (time.monotonic() < end or not ready()):
            time.sleep(0.2)
        return True
    except KeyboardInterrupt:
        return False
    finally:
        child.kill()
        child.wait()


def summary(path: Path, title: str, begin: int) -> int:
    """Prints the slopes of the lines from number `begin` on; returns how many lines there are."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    part = lines[begin + SKIPPED :]
    if len(part) < 2:
        print(f"{title}: {len(lines) - begin} steps, too few")
        return len(lines)
    print(f"{title}: steps {part[0]['step']} to {part[-1]['step']}")
    for name in part[0]:
        if name != "step":
            values = np.array([line[name] for line in part])
            steps = np.array([line["step"] for line in part])
            known = np.isfinite(values)
            if known.sum() < 2:
                print(f"  {name:<20} unknown: nothing was learned", flush=True)
                continue
            values, steps = values[known], steps[known]
            slope = np.polyfit(steps, values, 1)[0]
            print(f"  {name:<20} {values[0]:.4f} to {values[-1]:.4f}, {slope:+.2e} a step", flush=True)
    return len(lines)


def main() -> None:
    """Runs, kills, runs again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.lines is not None:
        return run(args)
    with tempfile.TemporaryDirectory() as folder:
        output, lines = Path(folder) / "run", Path(folder) / "lines.jsonl"
        command = [sys.executable, __file__, *sys.argv[1:], "--output", str(output), "--lines", str(lines)]
        with (Path(folder) / "log").open("w") as log:
            seen, going_on = 0, True
            for title in ("before the kill", "after it"):
                if going_on:
                    child = subprocess.Popen(command, stdout=log, stderr=log)
                    going_on = until(child, args.minutes * 30, lambda: any(output.glob("checkpoint-*")))
                    seen = summary(lines, title, seen)
        written = (Path(folder) / "log").read_text().splitlines(keepends=True)
        print("".join(line for line in written if "ontinuing" in line), end="")
        if not seen:
            print("".join(written[-SHOWN:]), end="")
    return None


if __name__ == "__main__":
    if "--lines" not in sys.argv:  # the run itself saves a checkpoint at SIGTERM
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    main()
