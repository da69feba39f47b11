"""The same exactness on CUDA, through `varlen_attn` in bfloat16."""

import pytest
import torch
from runs import arguments, make_folder, metrics
from tiny_models import documents, gradients, make
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1 import grpo, sft
from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.modeling.attention import ATTENTION, SDPA_ATTENTION
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import TokenSequence, build_pack

pytestmark = pytest.mark.gpu

KINDS = ["llama", "qwen2", "qwen3", "mistral_window", "gemma3_window"]
LENGTHS = [2, 9, 3, 130, 64, 12, 5, 200]


def loss_and_gradients(model, sequences, attention, autocast=True):
    model.set_attn_implementation(attention)
    pack = build_pack(sequences, "cuda")
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        out = model(pack=pack)
    (out.logprobs * pack.fields.weight).sum().backward()
    return out.logprobs.detach(), gradients(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_varlen_is_as_close_to_float32_as_sdpa_in_bfloat16(kind, checkpointing):
    model = make(kind).cuda()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    sequences = documents(LENGTHS)
    exact, exact_gradients = loss_and_gradients(model, sequences, SDPA_ATTENTION, autocast=False)
    sdpa, sdpa_gradients = loss_and_gradients(model, sequences, SDPA_ATTENTION)
    varlen, varlen_gradients = loss_and_gradients(model, sequences, ATTENTION)
    assert (varlen - exact).abs().mean() <= 1.5 * (sdpa - exact).abs().mean()
    for name, gradient in exact_gradients.items():
        scale = gradient.norm()
        error, usual = ((g[name] - gradient).norm() / scale for g in (varlen_gradients, sdpa_gradients))
        assert error <= max(2 * usual, 0.02), name


@pytest.mark.parametrize("kind", KINDS)
def test_documents_never_see_each_other_on_cuda(kind):
    model = make(kind).cuda().eval()
    first, second, other = documents([110, 140, 110])
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        one = model(pack=build_pack([first, second], "cuda")).logprobs
        two = model(pack=build_pack([other, second], "cuda")).logprobs
    learned = int(second.learn.sum())
    assert torch.equal(one[-learned:], two[-learned:])
    assert not torch.allclose(one[:-learned], two[:-learned])


def test_sampled_and_recomputed_logprobs_agree_in_bfloat16(tmp_path):
    folder = make_folder(tmp_path) / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=ATTENTION).cuda()
    add_logprob_forward(model)
    engine = TransformersEngine(model, AutoTokenizer.from_pretrained(folder))
    requests = [Request(i, [40 + i] * (i + 1), Sampling(n=4, max_tokens=40, seed=i)) for i in range(8)]
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        for request, group in zip(requests, engine.generate(requests), strict=True):
            for completion in group:
                ids = torch.tensor(request.prompt + completion.token_ids)
                learn = torch.arange(len(ids)) >= len(request.prompt)
                again = model(pack=build_pack([TokenSequence(ids, learn)], "cuda")).logprobs.cpu()
                torch.testing.assert_close(torch.tensor(completion.logprobs), again, rtol=0, atol=0.05)


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_runs_on_cuda_learn(tmp_path, checkpointing):
    folder = make_folder(tmp_path)
    options = {"use_cpu": "false", "gradient_checkpointing": checkpointing, "max_steps": 6}
    sft.main(arguments(folder, "sft", tmp_path / "sft", packing="true", max_length=128, **options))
    lines = metrics(tmp_path / "sft")
    assert lines[-1]["loss"] < lines[0]["loss"]
    grpo.main(arguments(folder, "grpo", tmp_path / "grpo", beta=0.01, num_iterations=2, **options))
    lines = metrics(tmp_path / "grpo")
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-3)
    assert all(line["sampling/logprob_difference"] < 0.05 for line in lines[::2])


def test_compiled_layers_train_like_plain_ones_on_cuda(tmp_path):
    folder = make_folder(tmp_path)
    losses = []
    for compiled in ("false", "true"):
        options = {"use_cpu": "false", "packing": "true", "max_length": 128, "torch_compile": compiled}
        sft.main(arguments(folder, "sft", tmp_path / compiled, **options))
        losses.append([line["loss"] for line in metrics(tmp_path / compiled)])
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
