"""Engines are judged, opened and used beside the policy that is trained, and must leave it as it is."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from open_r1.configs import GRPOConfig, ModelConfig
from open_r1.engine.choose import automatic_engine
from open_r1.engine.native.engine import NativeEngine, NativeOptions
from open_r1.engine.transformers_engine import ReplicaEngine, TransformersEngine
from open_r1.modeling.architectures import check_sequence_parallel
from open_r1.run.policy_engine import native_engine
from open_r1.training.model import adopt_policy, empty_replica
from open_r1.training.packing import TokenSequence, build_pack
from open_r1.training.policy_weights import PolicyWeights

MODEL = ModelConfig(model_name_or_path="policy")
TOKENIZER = SimpleNamespace(pad_token_id=0, eos_token_id=0)


@pytest.fixture
def args(tmp_path):
    return GRPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[])


@pytest.fixture
def policy(args):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, num_hidden_layers=2, max_position_embeddings=64, **sizes)
    return adopt_policy(LlamaForCausalLM(config), MODEL, args).train()


def state(policy):
    """Whatever a forward or backward pass could depend on."""
    sequence = TokenSequence(torch.arange(10), torch.arange(10) > 3)
    return {
        "logprobs": policy(pack=build_pack([sequence], "cpu")).logprobs.tolist(),
        "attention": policy.config._attn_implementation,
        "configuration": policy.config.to_dict(),
        "parameters": {n: (id(p), p.data_ptr(), p.dtype, p.requires_grad) for n, p in policy.named_parameters()},
        "modules": [(n, type(m), m.training, m.config is policy.config) for n, m in with_config(policy)],
    }


def with_config(policy):
    return [(name, module) for name, module in policy.named_modules() if hasattr(module, "config")]


def judge(policy, args):
    assert automatic_engine(policy.config, on_cuda=True, wants_vllm=False) == "native"
    check_sequence_parallel(policy.config, 2)


def decode_native(policy, args, share=False):
    engine = native_engine(args, MODEL, policy, TOKENIZER, 16, NativeOptions(max_num_seqs=2, memory=0.01))
    if share:
        engine.model.share(policy)
    update_and_close(engine, policy)


def share_native(policy, args):
    decode_native(policy, args, share=True)


def decode_replica(policy, args):
    update_and_close(ReplicaEngine(empty_replica(MODEL, args, policy.config), TOKENIZER), policy)


def decode_itself(policy, args):
    update_and_close(TransformersEngine(policy, TOKENIZER), policy)


def update_and_close(engine, policy):
    engine.update_weights(PolicyWeights(policy, engine), 1)
    if isinstance(engine, NativeEngine):
        engine.start()
    engine.close()


@pytest.mark.parametrize("use", [judge, decode_native, share_native, decode_replica, decode_itself])
def test_a_policy_is_the_same_after_an_engine_was_judged_opened_and_closed(policy, args, use):
    before = state(policy)
    use(policy, args)
    assert state(policy) == before
