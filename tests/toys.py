"""Tiny tokenizers and models, as normal Hugging Face folders, for tests of every room."""

from pathlib import Path
from typing import Any, Literal

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Keeps prefixes and reasoning; ends turns with <|im_end|>."""

DEEPSEEK_LIKE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' + m['content'].split('</think>')[-1] + '<|im_end|>\n' }}"
    "{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""Drops everything up to </think> from assistant turns, and opens <think> in the generation prompt."""

LINES = (
    "What is 12 + 30 + 7? Let us add step by step: 12 + 30 = 42, and 42 + 7 = 49. The answer is 49.",
    "<think>\n3 + 4 = 7\n</think>\n<answer>\n7\n</answer>",
    "system user assistant problem solution answer \\boxed{12}",
)


def make_tokenizer(
    folder: Path,
    *,
    chat_template: str | None = CHATML,
    pad: str | None = "<|endoftext|>",
    eos: str = "<|im_end|>",
    extra_tokens: tuple[str, ...] = (),
    vocab_size: int = 320,
) -> Path:
    """A byte-level BPE tokenizer in `folder`, without a pad token if `pad` is None."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra_tokens]
    special += [token for token in (pad, eos) if token is not None and token not in special]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    names: dict[str, Any] = {"eos_token": eos}
    if pad is not None:
        names["pad_token"] = pad
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = chat_template
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def make_model(
    folder: Path,
    arch: Literal["qwen2", "llama"] = "qwen2",
    *,
    tie_word_embeddings: bool = True,
    seed: int = 0,
    **config_overrides: Any,
) -> Path:
    """A random model of two layers and width 32 in `folder`, with the vocabulary of the tokenizer that is
    there (320 tokens if there is none); its generation config ends at the tokenizer's eos token."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config_class, model_class = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }[arch]
    options: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tie_word_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        options |= {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config_class(**options | config_overrides))
    model.save_pretrained(folder)
    return folder
