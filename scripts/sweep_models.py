"""Tries every causal language model of transformers as a tiny random model, and writes the table of docs/models.md.

    python scripts/sweep_models.py                 # all of them, into docs/models.md
    python scripts/sweep_models.py qwen3_5_text    # some, on the screen

A model that is accepted must compute the same logprobs and gradients packed and alone, in float32 on the CPU (in
float64 where a ReLU is too near its corner), with tied and untied heads and under LoRA; its completions must have the
logprobs that the trainer computes, and what is saved must be what transformers loads. One that is refused must be so by
its configuration, in a sentence. Anything else ends with exit status 1. A new version of transformers is checked by
running this again.
"""

import argparse
import copy
import dataclasses
import multiprocessing
import os
import re
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from open_r1.engine.native.engine import NativeEngine
from open_r1.engine.native.support import why_unsupported as why_not_native
from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.errors import UserError
from open_r1.modeling.architectures import can_share_prompts, check_supported
from open_r1.modeling.attention import ATTENTION
from open_r1.modeling.mixers import unadaptable
from open_r1.modeling.rope import length_rule
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import TokenSequence, build_pack, plan_packs

PAGE = Path(__file__).parents[1] / "docs/models.md"
MARKS = "<!-- sweep -->\n", "<!-- end of sweep -->"
LARGEST = 8_000_000
"""Parameters of a model that is still called tiny."""
TOLERANCE = 1e-3
LENGTHS = (11, 7, 30, 2, 1, 13, 30)
SMALL: dict[str, Any] = {
    **{"vocab_size": 97, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **{"num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 4},
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 128),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **{"num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), 5),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"mamba_d_state": 8, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1},
    **{"mamba_expand": 2, "mamba_dt_rank": 4, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8},
    **{"n_groups": 1, "chunk_size": 16, "vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8},
    **{"global_head_dim": 8, "num_kv_shared_layers": 0, "output_router_logits": True},
}
LATENT = {"num_key_value_heads": 4}
ALTERNATING = ["linear_attention", "full_attention"] * 2
SOUND = {
    "text_encoder": {"model_type": "t5"},
    "audio_encoder": {"model_type": "encodec"},
    "decoder": {"model_type": "musicgen_decoder"},
}
TWO_WINDOWS = ["sliding_attention", "full_attention"] * 2
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite"), LATENT),
    **dict.fromkeys(("glm_moe_dsa", "minicpm3"), LATENT),
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
        },
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "falcon": {"num_kv_heads": 2},
    "granitemoehybrid": {"layer_types": ALTERNATING, "shared_intermediate_size": 16},
    "gemma3n_text": {
        **{"layer_types": TWO_WINDOWS, "activation_sparsity_pattern": [0.0] * 4, "laurel_rank": 8},
    },
    "gemma3n_text (shared keys)": {
        **{"layer_types": TWO_WINDOWS, "activation_sparsity_pattern": [0.0] * 4, "laurel_rank": 8},
        "num_kv_shared_layers": 2,
    },
    "gemma4_text (shared keys)": {"layer_types": TWO_WINDOWS, "num_kv_shared_layers": 2},
    "gemma4_text (experts)": {"enable_moe_block": True, "top_k_experts": 2},
    "gemma4_unified": {"vision_config": {"mm_embed_dim": 32, "mm_posemb_size": 16, "output_proj_dims": 32}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": ALTERNATING[:2], "num_hidden_layers": 2, **LATENT},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {
        **{"ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "zero_expert_num": 2, "moe_topk": 2, "num_layers": 2},
        **LATENT,
    },
    "mamba2": {"head_dim": 16},
    **dict.fromkeys(("musicgen", "musicgen_melody"), SOUND),
    "phimoe": {"sliding_window": 128},
    "phi3 (LongRoPE)": {
        "original_max_position_embeddings": 12,
        "rope_parameters": {
            **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 12},
            **{"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "factor": 4.0},
        },
    },
    "deepseek_v3 (whole queries)": {"q_lora_rank": None, **LATENT},
    "granitemoehybrid (no experts)": {
        "layer_types": ALTERNATING,
        **{"shared_intermediate_size": 16, "num_local_experts": 0, "num_experts_per_tok": 0},
    },
    "llama (biases)": {"attention_bias": True, "mlp_bias": True},
    "llama (Llama 3 RoPE)": {
        "rope_parameters": {
            **{"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0},
            **{"high_freq_factor": 4.0, "original_max_position_embeddings": 12},
        }
    },
    "qwen2 (windows)": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3 (YaRN)": {
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 12},
        }
    },
    "phi3 (partial RoPE)": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    },
    "llama (dynamic RoPE)": {
        "max_position_embeddings": 12,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    },
    "youtu": {**LATENT, "pad_token_id": None},  # transformers clears its row of the embedding while it loads
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
    "nemotron_h": {"time_step_min": 1e-8},
    "zamba2": {"time_step_min": 1e-8, "layer_types": ["linear_attention", "hybrid"] * 2, "hybrid_layer_ids": [1, 3]},
}


@dataclasses.dataclass
class Outcome:
    """What came of one type: `verdict` is `trains`, `refused`, `not tried` or `wrong`."""

    kind: str
    verdict: str
    said: str = ""
    sharing: str = ""
    engines: str = ""
    precision: str = ""


def all_kinds() -> list[str]:
    """Every type of transformers, and variants of some (in parentheses)."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *(kind for kind in OWN if " " in kind)})


def tiny_config(kind: str) -> Any:
    """A configuration of a few thousand parameters."""
    config_class: Any = CONFIG_MAPPING[kind.split(" ")[0]]
    parts = {
        name: _small(part) | {"model_type": part.model_type}
        for name, part in getattr(config_class, "sub_configs", {}).items()
        if hasattr(part, "model_type") and dataclasses.is_dataclass(part)
    }
    return config_class(**_small(config_class) | parts | copy.deepcopy(OWN.get(kind, {})))


def _small(config_class: Any) -> dict[str, Any]:
    known = {f.name for f in dataclasses.fields(config_class)}
    return {k: v for k, v in SMALL.items() if k in known}


def try_kind(kind: str) -> Outcome:
    """Refusal, or both computations compared."""
    try:
        config = tiny_config(kind)
        check_supported(config)
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    except UserError as refusal:
        return Outcome(kind, "refused", str(refusal).split("here: ")[1].split(". docs/models.md")[0])
    except ImportError as error:
        packages = " and ".join(re.findall(r"requires the (\S+) library", str(error))) or str(error)
        return Outcome(kind, "not tried", f"transformers makes it only with {packages}")
    except Exception as error:  # of any library: not ours to explain
        return Outcome(kind, "not tried", f"no tiny model can be made: {type(error).__name__}")
    if size > LARGEST:
        return Outcome(kind, "not tried", f"the smallest that can be made has {size / 1e6:.0f}M parameters")
    try:
        return _compare(kind, config)
    except Exception as error:
        return Outcome(
            kind, "wrong", f"{type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}"
        )


def random_models(config: Any) -> tuple[Any, Any]:
    """The plain model, and the same one as the trainer has it."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager")
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    return plain.eval(), trained_copy(plain)


def trained_copy(plain: Any, dtype: torch.dtype = torch.float32) -> Any:
    """`plain` as the trainer has it."""
    config = copy.deepcopy(plain.config)
    ours = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION, dtype=dtype)
    ours.load_state_dict(plain.state_dict())
    add_logprob_forward(ours)
    return ours.eval()


def _compare(kind: str, config: Any) -> Outcome:
    rule = length_rule(config)
    precision = "float32"
    for tied, variant in _heads(config):
        plain, ours = random_models(variant)
        shares = can_share_prompts(ours)
        for sequences in [_documents(), *([_group()] if shares else [])]:
            worst = _difference(plain, ours, sequences, rule)
            if not worst < TOLERANCE:
                precision = "float64"
                exact = copy.deepcopy(plain).double()
                worst = _difference(exact, trained_copy(exact, torch.float64), sequences, rule)
            if not worst < TOLERANCE:
                return Outcome(kind, "wrong", f"packed and alone differ by {worst:.2g} (tied head: {tied})")
        if not (worst := _difference_on_disk(plain, ours)) < 1e-5:
            return Outcome(kind, "wrong", f"what is saved differs by {worst:.2g} (tied head: {tied})")
    if not (worst := _difference(*_adapted(plain), _documents()[1:5], rule)) < TOLERANCE:
        return Outcome(kind, "wrong", f"packed and alone differ by {worst:.2g} under LoRA")
    if not _generates(ours, TransformersEngine(ours, _Words())):  # type: ignore[arg-type]
        return Outcome(kind, "wrong", "the transformers engine's logprobs are not the trainer's")
    engines = ["transformers"]
    if why_not_native(config) is None:
        if not _generates(ours, _native(plain)):
            return Outcome(kind, "wrong", "the native engine's logprobs are not the trainer's")
        engines.append("native")
    return Outcome(kind, "trains", "", "yes" if shares else "no", ", ".join(engines), precision)


def _heads(config: Any) -> list[tuple[bool, Any]]:
    """Configurations with a tied head and with one of its own, as far as the type has them."""
    found = []
    for tied in (True, False):
        variant = copy.deepcopy(config)
        variant.tie_word_embeddings = variant.get_text_config().tie_word_embeddings = tied
        try:
            variant.validate()
        except StrictDataclassClassValidationError:  # DBRX is never tied
            continue
        found.append((tied, variant))
    return found


def _difference_on_disk(plain: Any, ours: Any) -> float:
    """Between the logits of a model and those of what transformers loads after it is saved."""
    ids = _documents()[0].input_ids[None]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        ours.save_pretrained(folder)
        loaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        return (loaded(input_ids=ids).logits - plain(input_ids=ids).logits).abs().max().item()


def _adapted(plain: Any) -> tuple[Any, Any]:
    """Both models with the same random adapters on all linear layers."""
    names = unadaptable(plain)
    options = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", exclude_modules=names)
    models = [peft.get_peft_model(m, options).eval() for m in (copy.deepcopy(plain), trained_copy(plain))]
    with torch.no_grad():
        for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            if one.requires_grad:
                other.copy_(one.normal_(0, 0.2))
    return models[0], models[1]


def _documents() -> list[TokenSequence]:
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(90, (n,), generator=generator) for n in LENGTHS]  # with tokens that fill padding
    return [TokenSequence(ids, torch.arange(len(ids)) >= max(1, len(ids) // 3)) for ids in drawn]


def _group() -> list[TokenSequence]:
    generator = torch.Generator().manual_seed(2)
    prompt = torch.randint(3, 90, (7,), generator=generator)
    drawn = [torch.cat([prompt, torch.randint(3, 90, (n,), generator=generator)]) for n in (4, 19, 1)]
    return [TokenSequence(ids, torch.arange(len(ids)) >= 7, group=0, shared=7) for ids in drawn]


def plain_logprobs(model: Any, sequence: TokenSequence) -> Tensor:
    """Of the learned tokens of a document alone, by transformers."""
    ids = sequence.input_ids
    logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(-1, ids[1:, None]).squeeze(-1)[sequence.learn[1:]]


def _difference(plain: Any, ours: Any, sequences: list[TokenSequence], rule: Any) -> float:
    """The largest difference between logprobs, and between gradients relative to the largest of their weight."""
    side = (lambda length: None) if rule is None else rule.side
    shares = can_share_prompts(ours)
    worst = 0.0
    expected = [plain_logprobs(plain, s) for s in sequences]
    sum(x.sin().sum() for x in expected).backward()  # type: ignore[union-attr]
    for members in plan_packs(sequences, 64, shares, side):
        found = ours(pack=build_pack([sequences[i] for i in members], share=shares)).logprobs
        found.sin().sum().backward()
        worst = max(worst, (found - torch.cat([expected[i] for i in members])).abs().max().item())
    gradients = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    wanted = {n: p.grad for n, p in plain.named_parameters() if p.grad is not None}
    floor = 1e-3 * max(g.abs().max().item() for g in wanted.values())
    for name, gradient in wanted.items():
        gap = (gradient - gradients[name]).abs().max() / gradient.abs().max().clamp(min=floor)
        worst = max(worst, gap.item())
    plain.zero_grad()
    ours.zero_grad()
    return worst


class _Words:
    pad_token_id, is_fast = 0, False

    def batch_decode(self, rows: list[list[int]], **_: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in rows]


def _native(plain: Any) -> NativeEngine:
    return NativeEngine(copy.deepcopy(plain), _Words(), max_model_len=32)  # type: ignore[arg-type]


def _generates(ours: Any, engine: Any) -> bool:
    """Whether the engine's completions have the logprobs that the trainer computes for them."""
    prompts = [[40, 41, 42], [50], [60, 61, 62, 63, 64]]
    requests = [Request(i, p, Sampling(n=2, seed=i, max_tokens=6)) for i, p in enumerate(prompts)]
    for prompt, group in zip(prompts, engine.generate(requests), strict=True):
        for completion in group:
            ids = torch.tensor(prompt + completion.token_ids)
            with torch.no_grad():
                logprobs = ours(pack=build_pack([TokenSequence(ids, torch.arange(len(ids)) >= len(prompt))])).logprobs
            if not (logprobs - torch.tensor(completion.logprobs)).abs().max() < TOLERANCE:
                return False
    return True


def table(outcomes: list[Outcome]) -> str:
    """Markdown."""
    lines = [
        f"transformers {transformers.__version__}: {sum(o.verdict == 'trains' for o in outcomes)} types train, "
        f"{sum(o.verdict == 'refused' for o in outcomes)} are refused, "
        f"{sum(o.verdict == 'not tried' for o in outcomes)} not tried.",
        "",
        "| type | SFT and GRPO | shared prompts | engines | precision checked |",
        "| --- | --- | --- | --- | --- |",
    ]
    for o in outcomes:
        if o.verdict == "trains":
            lines.append(f"| `{o.kind}` | yes | {o.sharing} | {o.engines} | {o.precision} |")
        else:
            lines.append(f"| `{o.kind}` | {o.verdict}: {o.said} | | | |")
    return "\n".join(lines) + "\n"


def _become_quiet() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")


def main(argv: list[str] | None = None) -> int:
    """Runs the sweep; 1 if a type ends neither in equal figures nor in a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help="model types; all of them, if none is given")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args(argv)
    kinds = args.kinds or all_kinds()
    outcomes = []
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn"), _become_quiet) as pool:
        for outcome in pool.map(try_kind, kinds):
            outcomes.append(outcome)
            print(f"{outcome.kind:28} {outcome.verdict:10} {outcome.said or outcome.engines}", flush=True)
    if not args.kinds:
        before, after = PAGE.read_text(encoding="utf-8").split(MARKS[0])
        PAGE.write_text(before + MARKS[0] + table(outcomes) + MARKS[1] + after.split(MARKS[1])[1], encoding="utf-8")
    return int(any(o.verdict == "wrong" for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
