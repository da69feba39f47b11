"""vLLM on a GPU, in bfloat16, against the model that trains there (make test-gpu, where vLLM is installed)."""

from importlib.util import find_spec

import pytest
import torch
from toys import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.vllm_engine import VLLMEngine, VLLMOptions
from open_r1.engine.vllm_weights import sum_of_squares

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or find_spec("vllm") is None, reason="needs a GPU and vLLM"),
]
PROMPTS = [[40, 41, 42], [50], [60, 61, 62, 63, 64, 65, 66], [70, 71]]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def pair(request, tmp_path_factory):
    """(vLLM's engine with two workers, the model in float32 on the GPU) with the same weights."""
    folder = make_tokenizer(tmp_path_factory.mktemp("model"), pad=None)
    make_model(folder, arch=request.param, tie_word_embeddings=request.param == "qwen2", hidden_size=256)
    model = AutoModelForCausalLM.from_pretrained(folder).cuda()
    options = VLLMOptions(
        str(folder),
        enforce_eager=True,
        max_num_seqs=16,
        gpu_memory_utilization=0.1,
        engines_per_device=2,
        sleep_mode=request.param == "llama",
    )
    engine = VLLMEngine(options, AutoTokenizer.from_pretrained(folder), max_model_len=64)
    engine.start()
    yield engine, model
    engine.close()


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


def test_logprobs_follow_the_trainer_through_updates_and_sleep(pair):
    """Invariant 6: weights go over CUDA IPC, the sums of their squares agree, and so do logprobs."""
    engine, model = pair
    assert difference(engine, model) < 0.02
    for version in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * parameter.std().nan_to_num(0.0))
        assert difference(engine, model) > 0.02
        engine.sleep()
        engine.update_weights(model.named_parameters(), version)
        engine.wake()
        assert engine._sender.channel.cuda is not None
        expected = sum_of_squares(p.to(torch.bfloat16) for p in model.parameters())
        assert engine.checksum() == pytest.approx(expected, rel=1e-6)
        assert difference(engine, model, temperature=0.7) < 0.02
