"""The copy that GRPO decodes with computes as the trainer does under autocast."""

import torch
from native_models import VOCAB, copy_of, make_model
from toys import make_tokenizer
from transformers import AutoTokenizer

from open_r1.engine.native.engine import NativeEngine, NativeOptions
from open_r1.engine.native.model import NativeModel, training_copy
from open_r1.engine.protocol import Request, Sampling
from open_r1.modeling.attention import ATTENTION
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import TokenSequence, build_pack


def trainer_logprobs(policy, prompt, completion):
    """As GRPO computes them: float32 weights under bfloat16 autocast."""
    ids = torch.tensor(prompt + completion.token_ids)
    pack = build_pack([TokenSequence(ids, torch.arange(len(ids)) >= len(prompt))])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return policy(pack=pack, temperature=1.0).logprobs


def test_a_training_copy_is_nearer_to_the_trainer_than_a_bfloat16_copy(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path))
    policy = make_model("qwen2", hidden_size=64, num_hidden_layers=4)
    copies = {"training": training_copy(copy_of(policy)), "bfloat16": copy_of(policy).to(torch.bfloat16)}
    policy.set_attn_implementation(ATTENTION)
    add_logprob_forward(policy)
    prompts = [[i, i + 1, i + 2] for i in range(10, 60, 10)]
    requests = [Request(i, p, Sampling(n=4, seed=i, max_tokens=24)) for i, p in enumerate(prompts)]
    differences = {}
    for name, model in copies.items():
        engine = NativeEngine(model, tokenizer, max_model_len=32, options=NativeOptions(max_num_seqs=16))
        found = [(p, c) for p, group in zip(prompts, engine.generate(requests), strict=True) for c in group]
        differences[name] = torch.cat(
            [(torch.tensor(c.logprobs) - trainer_logprobs(policy, p, c)).abs() for p, c in found]
        ).mean()
    assert differences["training"] < 0.8 * differences["bfloat16"]


def test_a_training_copy_has_linear_layers_in_bfloat16_and_two_tensors_of_a_tied_embedding():
    policy = make_model("qwen2")
    model = NativeModel(training_copy(copy_of(policy)))
    embedding, head = model.model.model.embed_tokens.weight, model.head.weight
    layer = model.layers[0]
    assert (embedding.dtype, head.dtype) == (torch.float32, torch.bfloat16)
    assert layer.self_attn.q_proj.weight.dtype == layer.self_attn.q_proj.bias.dtype == torch.bfloat16
    assert layer.input_layernorm.weight.dtype == torch.float32
    addresses = embedding.data_ptr(), head.data_ptr()
    other = make_model("qwen2", seed=1)
    model.load(other.named_parameters())
    assert (embedding.data_ptr(), head.data_ptr()) == addresses
    torch.testing.assert_close(embedding, other.model.embed_tokens.weight, rtol=0, atol=0)
    torch.testing.assert_close(head, other.lm_head.weight.bfloat16(), rtol=0, atol=0)


def test_a_pure_bfloat16_policy_shares_its_tensors():
    policy = make_model("qwen2").to(torch.bfloat16)
    model = NativeModel(copy_of(policy))
    model.share(policy)
    mine, theirs = (dict(m.named_parameters(remove_duplicate=False)) for m in (model.model, policy))
    assert all(mine[name] is theirs[name] for name in theirs)
    with torch.no_grad():
        policy.lm_head.weight.zero_()
    assert not model.head_product(torch.ones(1, 32)).any()
    assert model.vocabulary == VOCAB
