"""Real trainers, through their public constructors, on recorded rollouts and texts; what each optimizer step computed.

As a script, under torchrun: `replay.py ROWS OUT SIZES` runs all rows of the file ROWS, in whose folder the recordings
are, with packs shared by each number of processes in SIZES, and saves their steps in OUT, by size and row.
"""

import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback

from open_r1.configs import GRPOConfig, ModelConfig, SFTConfig
from open_r1.data.sft import tokenize_sft
from open_r1.engine.protocol import Completion
from open_r1.training.grpo import GRPOTrainer
from open_r1.training.model import load_causal_lm, load_policy
from open_r1.training.sft import SFTTrainer, packed_rows

LEARNING_RATE = 0.5
FIXED = {
    "use_cpu": True,
    "optim": "sgd",
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "gradient_checkpointing": False,
    "max_tokens_per_microbatch": 40,
    "save_strategy": "no",
    "report_to": "none",
    "hang_timeout": 0,
}


class ReplayEngine:
    """Answers each prompt with the completions that were recorded for it."""

    def __init__(self, rollouts):
        self.completions = {}
        for i, (prompt, completion, logprobs, _, finish_reason) in enumerate(rollouts):
            group = self.completions.setdefault(tuple(prompt), [])
            group.append(Completion(str(i), completion, logprobs, finish_reason, weights_version=0))

    def stream(self, requests):
        for request in requests:
            yield request.id, self.completions[tuple(request.prompt)]

    def generate(self, requests):
        return [group for _, group in self.stream(requests)]

    def update_weights(self, named_tensors, version):
        for _ in named_tensors:
            pass

    def sleep(self): ...

    def wake(self): ...

    def close(self): ...


class Steps(TrainerCallback):
    """The loss and gradients of every optimizer step."""

    def __init__(self):
        self.losses, self.gradients = [], []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" in logs:
            self.losses.append(logs["loss"])

    def pairs(self):
        return list(zip(self.losses, self.gradients, strict=True))


def grpo_steps(folder, world_size=1, steps_per_generation=1, **options):
    """`(loss, gradients)` of every optimizer step on the recorded round."""
    rollouts = json.loads((folder / "rollouts.json").read_text())
    prompts = list(dict.fromkeys(tuple(r[0]) for r in rollouts))
    rewards = [r[3] for r in rollouts]
    group = len(rollouts) // len(prompts)
    args = GRPOConfig(
        output_dir=str(folder / "out"),
        num_generations=group,
        per_device_train_batch_size=len(rollouts) // steps_per_generation // world_size,
        steps_per_generation=steps_per_generation,
        max_steps=steps_per_generation * options.get("num_iterations", 1),
        shuffle_dataset=False,
        **{"max_completion_length": 12} | FIXED | options,
    )
    steps = Steps()
    trainer = GRPOTrainer(
        load_policy(ModelConfig(model_name_or_path=str(folder / "policy")), args),
        args,
        engine=ReplayEngine(rollouts),
        reward_funcs=[lambda completions, **columns: [rewards[int(text)] for text in completions]],
        reward_names=["recorded"],
        stop_token_ids=[2],
        reference=load_causal_lm(ModelConfig(model_name_or_path=str(folder / "reference"))) if args.beta else None,
        tokenizer=AutoTokenizer.from_pretrained(folder / "policy"),
        train_dataset=Dataset.from_list([{"prompt": "", "prompt_ids": p, "prompt_text": ""} for p in prompts]),
        callbacks=[steps],
    )
    trainer.train()
    return steps.pairs()


def sft_steps(folder, world_size=1, **options):
    """`(loss, gradients)` of one optimizer step on all texts."""
    args = SFTConfig(output_dir=str(folder / "out"), max_steps=1, **FIXED | options)
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    texts = Dataset.from_list(json.loads((folder / "texts.json").read_text()))
    rows = packed_rows(tokenize_sft(texts, tokenizer, args, None), args)
    args.per_device_train_batch_size = -(-len(rows) // world_size)
    steps = Steps()
    trainer = SFTTrainer(
        load_policy(ModelConfig(model_name_or_path=str(folder / "policy")), args),
        args,
        tokenizer=tokenizer,
        train_dataset=rows,
        callbacks=[steps],
    )
    trainer.train()
    return steps.pairs()


RUN = {"grpo": grpo_steps, "sft": sft_steps}

if __name__ == "__main__":
    path, out, sizes = Path(sys.argv[1]), Path(sys.argv[2]), map(int, sys.argv[3:])
    rows = json.loads(path.read_text())
    results = {}
    for size in sizes:
        world_size = int(os.environ["WORLD_SIZE"]) // size
        for name, (task, options) in rows.items():
            results[size, name] = RUN[task](path.parent, world_size, sequence_parallel_size=size, **options)
    if torch.distributed.get_rank() == 0:
        torch.save(results, out)
    torch.distributed.destroy_process_group()
