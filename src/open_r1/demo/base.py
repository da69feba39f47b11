"""The demo's base model: a tiny Qwen2, pre-trained on careful and hasty worked examples."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from open_r1 import sft
from open_r1.demo.files import recipe_argv, write_jsonl
from open_r1.demo.task import Task, conversation
from open_r1.demo.tokenizer import build_tokenizer


def tiny_model(vocab_size: int, seed: int) -> Qwen2ForCausalLM:
    """A randomly initialized Qwen2 with 0.92 million parameters and tied embeddings."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        use_sliding_window=False,
    )
    return Qwen2ForCausalLM(config)


def save_random_model(folder: Path, words: Sequence[str], seed: int) -> None:
    """Writes an untrained model and its tokenizer as a Hugging Face folder."""
    tokenizer = build_tokenizer(words)
    model = tiny_model(len(tokenizer), seed)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    for name, value in ends.items():
        setattr(model.config, name, value)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, **ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pretrain(task: Task, output: Path, seed: int) -> None:
    """Trains the base model from scratch into `output/base`, through the SFT entry point."""
    examples = task.worked_examples(task.examples_to_pretrain, seed)
    rows = ({"messages": conversation(problem.question, text)} for problem, text in examples)
    data = write_jsonl(output / "data" / "worked_examples.jsonl", rows)
    start = output / "base_init"
    save_random_model(start, task.words, seed)
    argv = recipe_argv("pretrain", model=start, data=data, output=output / "base", seed=seed)
    sft.main([*argv, *task.overrides.get("pretrain", [])])
    shutil.rmtree(start)
