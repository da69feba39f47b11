"""Tiny random models of every architecture that the native engine decodes with."""

import copy

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 97
SIZE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
KINDS = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 5},
    "smollm3": {"no_rope_layers": [1, 0], "tie_word_embeddings": True},
    "gemma3_text": {"head_dim": 16, "tie_word_embeddings": True, **WINDOWS},
    "gemma2": {"head_dim": 16, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0, **WINDOWS},
    "granite_swa": {"attention_multiplier": 0.3, **WINDOWS},
    "olmo2": {},
    "phi3": {"sliding_window": 5},
    "glm4": {"head_dim": 8},
    "granite": {"logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "cohere2": {"logit_scale": 0.25, **WINDOWS},
}


def make_model(kind="llama", seed=0, **overrides):
    """A float32 model with weights large enough to matter."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**SIZE, **KINDS[kind], **overrides})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                parameter.normal_(0, 2)
    return model.eval()


def copy_of(model):
    """The same weights in another model: the engine takes over what it is given."""
    return copy.deepcopy(model)
