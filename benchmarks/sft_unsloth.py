"""unsloth's case of `sft.py`, in a process of its own because unsloth replaces classes of transformers and TRL.

The argument is a folder with the model, its tokenizer and `case.json`; `result.json` is written there. unsloth runs
from a folder of its own (`--unsloth_path`), beside the torch and transformers that are installed:

    pip install --no-deps --target <folder> unsloth==2026.10.9 unsloth_zoo==2026.10.9 trl==1.15.0 datasets==4.8.5 \\
        dill multiprocess cut_cross_entropy torchao msgspec tyro docstring_parser typeguard einops bitsandbytes

Its other requirements (xformers, hf_transfer, diffusers, structlog, json5, nest-asyncio) are not needed for this.
"""

# ruff: noqa: I001  # unsloth must be imported before what it patches
from unsloth import FastLanguageModel

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measure import Result, StepTimer, lora_config, measured
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Theirs(SFTTrainer):
    """Tells the timer how many tokens a micro-batch has, without what pads the end of its row."""

    timer: StepTimer

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """As it is, after counting."""
        lengths = inputs.get("packed_seq_lengths", [inputs["input_ids"].numel()])
        self.timer.tokens += int(sum(lengths))
        self.timer.computed = self.timer.tokens
        return super().training_step(model, inputs, num_items_in_batch)


def run(folder: Path, case: dict[str, Any], result: Result) -> None:
    """Trains LoRA on packed rows, one a micro-batch, until the timer has its steps."""
    checkpointing = "unsloth" if case["checkpointing"] else False
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(folder),
        max_seq_length=case["options"]["max_length"],
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
    timer = StepTimer(result, case["steps"], case["warmup"], time.monotonic() + case["seconds"])
    trainer = Theirs(
        model,
        args=SFTConfig(**case["options"]),
        train_dataset=Dataset.from_dict({"input_ids": case["documents"]}),
        processing_class=tokenizer,
        callbacks=[timer],
    )
    trainer.timer = timer
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def main(folder: Path) -> None:
    """Measures the case of a folder."""
    case = json.loads((folder / "case.json").read_text())
    result = measured(Result("", {}), lambda result: run(folder, case, result))
    (folder / "result.json").write_text(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
