"""A vLLM server on a GPU, in bfloat16, against the model that trains on another (make test-gpu)."""

from importlib.util import find_spec

import pytest
import torch
from toys import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1.devices import visible_devices
from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.vllm.addresses import free_port
from open_r1.engine.vllm.engine import VLLMServerEngine
from open_r1.engine.vllm.process import ServerOptions, start_servers, vllm_server
from open_r1.engine.vllm.weights import sum_of_squares

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2 or find_spec("vllm") is None, reason="needs two GPUs and vLLM"),
]
PROMPTS = [[40, 41, 42], [50], [60, 61, 62, 63, 64, 65, 66], [70, 71]]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def pair(request, tmp_path_factory):
    """(the server's engine, the model in float32 on the first GPU) with the same weights."""
    folder = make_tokenizer(tmp_path_factory.mktemp("model"), pad=None)
    make_model(folder, arch=request.param, tie_word_embeddings=request.param == "qwen2", hidden_size=256)
    model = AutoModelForCausalLM.from_pretrained(folder).cuda()
    options = ServerOptions(
        model=str(folder),
        port=free_port(8200),
        dtype="bfloat16",
        max_model_len=64,
        max_num_seqs=16,
        gpu_memory_utilization=0.1,
        enforce_eager=True,
    )
    (server,) = start_servers([vllm_server(options, visible_devices()[1:2], folder / "server.log")], 600.0, print)
    try:
        engine = VLLMServerEngine(server.url, AutoTokenizer.from_pretrained(folder), max_model_len=64, group_port=0)
        yield engine, model
        engine.close()
    finally:
        server.stop()


def difference(engine, model, temperature=1.0):
    """Mean absolute difference of the logprobs of sampled tokens."""
    requests = [Request(i, p, Sampling(n=4, max_tokens=12, temperature=temperature)) for i, p in enumerate(PROMPTS)]
    gaps = []
    for prompt, group in zip(PROMPTS, engine.generate(requests), strict=True):
        for completion in group:
            ids = torch.tensor(prompt + completion.token_ids).cuda()
            with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
                logits = model(input_ids=ids[None, :-1]).logits[0, len(prompt) - 1 :].float()
            ours = (logits / temperature).log_softmax(-1).gather(-1, ids[len(prompt) :, None]).squeeze(-1)
            gaps.append((ours.cpu() - torch.tensor(completion.logprobs)).abs())
    return torch.cat(gaps).mean().item()


def test_logprobs_follow_the_trainer_through_updates(pair):
    """Invariant 6: weights go over NCCL, the sums of their squares agree, and so do logprobs."""
    engine, model = pair
    assert difference(engine, model) < 0.02
    for version in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * parameter.std().nan_to_num(0.0))
        assert difference(engine, model) > 0.02
        engine.update_weights(model.named_parameters(), version)
        expected = sum_of_squares(p.to(torch.bfloat16) for p in model.parameters())
        assert engine.checksum() == pytest.approx(expected, rel=1e-6)
        assert difference(engine, model, temperature=0.7) < 0.02
