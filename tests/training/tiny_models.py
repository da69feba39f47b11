"""Tiny random models and the plain, padded computation that packing is compared with."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    Cohere2ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GraniteConfig,
    GraniteForCausalLM,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3NextConfig,
)

from open_r1.modeling.attention import ATTENTION
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import TokenFields, TokenSequence

VOCAB = 97
SIZE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GATED = {
    **{"head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2},
    **{"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]},
}
GATED_EXPERTS = {
    **{**GATED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "shared_expert_intermediate_size": 16,
}
MIXERS = {
    "qwen3_5": (None, Qwen3_5TextConfig, GATED),
    "qwen3_5_moe": (None, Qwen3_5MoeTextConfig, GATED_EXPERTS),
    "qwen3_next": (None, Qwen3NextConfig, GATED_EXPERTS),
    "lfm2": (None, Lfm2Config, {"layer_types": ["conv", "full_attention"]}),
    "mamba": (None, MambaConfig, {"state_size": 8}),
    "mamba2": (None, Mamba2Config, {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8}),
}
"""Models whose layers mix tokens without attention."""
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama_tied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}),
    "mistral_window": (MistralForCausalLM, MistralConfig, {"sliding_window": 5}),
    "gemma3_window": (Gemma3ForCausalLM, Gemma3TextConfig, {"head_dim": 8, "sliding_window": 5}),
    "cohere2_scaled": (Cohere2ForCausalLM, Cohere2Config, {"logit_scale": 0.25, "sliding_window": 5}),
    "granite_scaled": (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 3.0}),
    "gemma2_scores": (
        Gemma2ForCausalLM,
        Gemma2Config,
        {"head_dim": 8, "sliding_window": 5, "attn_logit_softcapping": 1.5},
    ),
    "gpt_oss_sinks": (None, GptOssConfig, {"head_dim": 8, "sliding_window": 5, **EXPERTS}),
    "llama4_chunks": (None, Llama4TextConfig, {"head_dim": 8, "attention_chunk_size": 5, "num_local_experts": 2}),
    "gemma2_softcap": (
        Gemma2ForCausalLM,
        Gemma2Config,
        {"head_dim": 8, "sliding_window": 5, "final_logit_softcapping": 2.0, "attn_logit_softcapping": None},
    ),
}


def make(kind="llama", seed=0, std=0.2, **overrides):
    """A float32 model in training mode that answers to packs, with weights large enough to matter at its size."""
    model_class, config_class, extra = (KINDS | MIXERS)[kind]
    torch.manual_seed(seed)
    config = config_class(**{**SIZE, **extra, **overrides})
    config._attn_implementation = ATTENTION
    model = AutoModelForCausalLM.from_config(config) if model_class is None else model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, std)
    add_logprob_forward(model)
    return model.train()


def documents(lengths, learned_share=0.6, seed=1):
    """Random documents with a prompt that is not learned, each field random."""
    generator = torch.Generator().manual_seed(seed)
    sequences = []
    for n in lengths:
        learn = torch.arange(n) >= max(1, int(n * (1 - learned_share)))
        count = int(learn.sum())
        sequences.append(
            TokenSequence(
                torch.randint(3, VOCAB, (n,), generator=generator),
                learn,
                TokenFields(weight=torch.rand(count, generator=generator)),
            )
        )
    return sequences


def plain_logprobs(model, sequences, temperature=1.0):
    """Padded on the right, masked, one batch: what everyone else computes. A list of `(learned,)` tensors."""
    width = max(len(s) for s in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, s in enumerate(sequences):
        ids[row, : len(s)], mask[row, : len(s)] = s.input_ids, 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float() / temperature
    logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return [logprobs[row, : len(s) - 1][s.learn[1:]] for row, s in enumerate(sequences)]


def gradients(model):
    """A copy of every gradient, which are then cleared."""
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def compile_uncompiled(monkeypatch):
    """Graphs of compiled layers run as they are."""
    compile_layers_with(monkeypatch, lambda graph, inputs: graph.forward)


def compile_layers_with(monkeypatch, backend):
    """Gives graphs of compiled layers to `backend`. The options of the compiler must still be given."""
    compile_function = torch.compile

    def compile_with(*args, dynamic=None, options=None, **kwargs):
        if dynamic is None or "backend" in kwargs:  # not a layer, or patched once more
            return compile_function(*args, dynamic=dynamic, options=options, **kwargs)
        assert options == {"triton.mix_order_reduction_non_strict_mode": True}, options
        return compile_function(*args, dynamic=dynamic, backend=backend, **kwargs)

    monkeypatch.setattr(torch, "compile", compile_with)
