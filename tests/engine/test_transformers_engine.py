from collections import Counter
from dataclasses import replace

import pytest
import torch
from toys import make_model, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine, logits_warpers, sample
from open_r1.modeling.attention import ATTENTION
from open_r1.training.logprobs import add_logprob_forward
from open_r1.training.packing import TokenSequence, build_pack
from open_r1.training.rollouts import rollout_sequence


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def engine(request, tmp_path_factory):
    folder = make_tokenizer(tmp_path_factory.mktemp("model"), pad=None)
    make_model(folder, arch=request.param)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=ATTENTION)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    add_logprob_forward(model)
    return TransformersEngine(model, AutoTokenizer.from_pretrained(folder))


PROMPTS = [[40, 41, 42], [50], [60, 61, 62, 63, 64, 65, 66], [70, 71]]


def requests(**options):
    return [Request(i, p, Sampling(**{"seed": i, "max_tokens": 12, **options})) for i, p in enumerate(PROMPTS)]


def test_greedy_equals_generate(engine):
    found = engine.generate(requests(temperature=0.0, stop_token_ids=(2,)))
    for prompt, (completion,) in zip(PROMPTS, found, strict=True):
        expected = engine.model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=0
        )[0, len(prompt) :].tolist()
        assert completion.token_ids == expected


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
def test_logprobs_are_those_that_the_trainer_computes(engine, temperature):
    """Invariant 3: on policy the ratio is 1."""
    found = engine.generate(requests(n=3, temperature=temperature))
    for prompt, group in zip(PROMPTS, found, strict=True):
        for completion in group:
            ids = torch.tensor(prompt + completion.token_ids)
            pack = build_pack([TokenSequence(ids, torch.arange(len(ids)) >= len(prompt))])
            with torch.no_grad():
                logprobs = engine.model(pack=pack, temperature=temperature).logprobs
            torch.testing.assert_close(torch.tensor(completion.logprobs), logprobs, rtol=0, atol=1e-4)


def test_a_completion_depends_on_its_seed_and_not_on_its_batch(engine):
    together = engine.generate(requests(n=4))
    alone = [engine.generate([r])[0] for r in requests(n=4)]
    small = TransformersEngine(engine.model, engine.tokenizer, max_tokens_per_batch=40).generate(requests(n=4))
    ids = [[c.token_ids for c in group] for group in together]
    assert ids == [[c.token_ids for c in group] for group in alone]
    assert ids == [[c.token_ids for c in group] for group in small]
    assert len({tuple(c) for c in ids[0]}) == 4
    other = engine.generate(requests(n=4, seed=99))
    assert ids != [[c.token_ids for c in group] for group in other]


@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_without_logprobs_the_same_tokens_are_written(engine, temperature):
    with_them = engine.generate(requests(n=2, temperature=temperature, top_p=0.9))
    without = engine.generate(requests(n=2, temperature=temperature, top_p=0.9, logprobs=False))
    assert [[replace(c, logprobs=None) for c in group] for group in with_them] == without


def test_every_stop_token_stops_and_stays_out_of_the_text(engine):
    free = engine.generate(requests(n=4, max_tokens=30))
    counts = Counter(t for group in free for c in group for t in c.token_ids[5:])
    stops = tuple(t for t, _ in counts.most_common(3))
    for group, unstopped in zip(engine.generate(requests(n=4, max_tokens=30, stop_token_ids=stops)), free, strict=True):
        for completion, whole in zip(group, unstopped, strict=True):
            end = next((i for i, t in enumerate(whole.token_ids) if t in stops), None)
            expected = whole.token_ids if end is None else whole.token_ids[: end + 1]
            assert completion.token_ids == expected
            assert completion.finish_reason == ("length" if end is None else "stop")
            assert len(completion.logprobs) == len(expected)
            text = expected if end is None else expected[:-1]
            assert completion.text == engine.tokenizer.decode(text, skip_special_tokens=True)


def test_messages_go_through_the_chat_template(engine):
    messages = [{"role": "user", "content": "12 + 30"}]
    ids = engine.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    greedy = Sampling(temperature=0.0, max_tokens=5)
    [by_ids], [by_messages] = engine.generate([Request("ids", ids, greedy), Request("messages", messages, greedy)])
    assert by_ids.token_ids == by_messages.token_ids
    assert by_ids.logprobs == pytest.approx(by_messages.logprobs, abs=1e-4)  # rows of a batch round otherwise


def test_stream_reads_no_further_than_it_must(engine, monkeypatch):
    monkeypatch.setattr("open_r1.engine.transformers_engine.WINDOW", 2)
    taken = []

    def lazily():
        for request in requests():
            taken.append(request.id)
            yield request

    stream = engine.stream(lazily())
    assert taken == []
    next(stream)
    assert taken == [0, 1]
    assert {i for i, _ in stream} | {0, 1} == {0, 1, 2, 3}


def test_completions_end_at_the_context_length(engine):
    limit = engine.model.config.max_position_embeddings
    (completion,) = engine.generate([Request(0, [40] * (limit - 3), Sampling(max_tokens=50))])[0]
    assert len(completion.token_ids) == 3
    assert completion.finish_reason == "length"


def test_completions_of_one_batch_end_at_limits_of_their_own(engine):
    asked = [
        Request(i, p, Sampling(max_tokens=limit))
        for i, (p, limit) in enumerate(zip(PROMPTS, (3, 6, 1, 9), strict=True))
    ]
    assert [len(completion.token_ids) for (completion,) in engine.generate(asked)] == [3, 6, 1, 9]


def test_a_prompt_that_fills_the_context_gets_an_empty_completion(tmp_path):
    """GPT-2 has no embedding for a position beyond its context."""
    folder = make_tokenizer(tmp_path)
    sizes = {"n_positions": 32, "n_embd": 32, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", vocab_size=90, **sizes))
    engine = TransformersEngine(model, AutoTokenizer.from_pretrained(folder))
    prompts = {"too long": [5] * 40, "full": [5] * 32, "fits": [5] * 30}
    found = dict(engine.stream(Request(name, p, Sampling(n=2, max_tokens=3)) for name, p in prompts.items()))
    lengths = {name: [(len(c.token_ids), len(c.logprobs), c.finish_reason) for c in f] for name, f in found.items()}
    assert lengths == {n: [(k, k, "length")] * 2 for n, k in {"too long": 0, "full": 0, "fits": 2}.items()}


@pytest.mark.parametrize(("value", "step"), [("nan", 0), ("inf", 0), ("nan", 2)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("logprobs", [False, True])
def test_logits_that_are_no_numbers_end_a_completion_as_an_error(
    engine, monkeypatch, caplog, value, step, temperature, logprobs
):
    asked = requests(temperature=temperature, logprobs=logprobs, n=2)
    expected = engine.generate(asked)
    forward, calls = engine.model.forward, []

    def broken(*args, **kwargs):
        out = forward(*args, **kwargs)
        if len(calls) == step:
            out.logits[-2:, :, 7] = float(value)
        calls.append(None)
        return out

    monkeypatch.setattr(engine.model, "forward", broken)
    found = engine.generate(asked)
    for group, other in zip(found, expected, strict=True):
        for completion, whole in zip(group, other, strict=True):
            failed = completion.finish_reason == "error"
            kept = step if failed else None
            assert completion.token_ids == whole.token_ids[:kept]
            assert completion.logprobs == (whole.logprobs[:kept] if logprobs else None)
    assert sum(c.finish_reason == "error" for group in found for c in group) >= 2
    assert "completions ended because their logits were not finite" in caplog.text


def test_sampling_follows_the_truncated_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])
    for options in ({}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.8}, {"min_p": 0.2}):
        sampling = Sampling(**options)
        warpers = logits_warpers(sampling)
        uniform = (torch.arange(4000) + 0.5) / 4000
        token, logprob = sample(logits.repeat(4000, 1), uniform, warpers, greedy=False)
        expected = warpers(torch.empty(1, 0, dtype=torch.long), logits[None])[0].softmax(-1)
        frequency = torch.bincount(token, minlength=5) / 4000
        torch.testing.assert_close(frequency, expected, rtol=0, atol=5e-4)
        torch.testing.assert_close(logprob.exp(), expected[token], rtol=1e-4, atol=0)


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    token, _ = sample(logits, torch.tensor([1 - 2**-24]), logits_warpers(Sampling()), greedy=False)
    assert token.item() == 1
    token, _ = sample(logits.flip(1), torch.tensor([0.0]), logits_warpers(Sampling()), greedy=False)
    assert token.item() == 1


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 16,
    "short_factor": [1.0] * 4,
    "long_factor": [3.0] * 4,
    "factor": 4.0,
}


@pytest.fixture(scope="module")
def longrope(tmp_path_factory):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "phi3",
        **{"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
        **{"original_max_position_embeddings": 16, "rope_parameters": LONGROPE},
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))
    return TransformersEngine(model.eval(), tokenizer)


def test_completions_on_both_sides_of_the_original_context_are_those_of_transformers_without_a_cache(longrope):
    """Short and long prompts together, completions that end before 16 tokens, at them, and beyond."""
    lengths, most = (3, 10, 15, 16, 17, 30), (4, 7, 1, 12, 12, 12)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 90, (n,), generator=generator).tolist() for n in lengths]
    found = longrope.generate(
        [Request(i, p, Sampling(n=2, seed=i, max_tokens=m)) for i, (p, m) in enumerate(zip(prompts, most, strict=True))]
    )
    for prompt, group, limit in zip(prompts, found, most, strict=True):
        for completion in group:
            assert len(completion.token_ids) == limit
            expected = []
            for i, token in enumerate(completion.token_ids):
                ids = torch.tensor([prompt + completion.token_ids[:i]])
                with torch.no_grad():
                    logits = longrope.model(input_ids=ids, use_cache=False).logits[0, -1]
                expected.append(logits.log_softmax(-1)[token].item())
            assert completion.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_completion_that_crosses_depends_on_its_seed_and_not_on_its_batch(longrope):
    requests = [Request(i, [7 + i] * n, Sampling(n=2, seed=i, max_tokens=14)) for i, n in enumerate((5, 16, 9, 20))]
    together = longrope.generate(requests)
    for request, group in zip(requests, together, strict=True):
        (alone,) = longrope.generate([request])
        assert [c.token_ids for c in alone] == [c.token_ids for c in group]


def test_tokens_come_with_the_experts_that_the_trainer_sends_them_to(tmp_path):
    """As long as the weights are the same; after a change of the routers many differ."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    config = AutoConfig.for_model("qwen3_moe", vocab_size=90, num_key_value_heads=2, **sizes, **experts)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).eval()
    add_logprob_forward(model)
    found = TransformersEngine(model, AutoTokenizer.from_pretrained(make_tokenizer(tmp_path))).generate(requests(n=3))

    def differing():
        count = []
        for prompt, group in zip(PROMPTS, found, strict=True):
            rows = [rollout_sequence({"prompt_ids": prompt}, completion, group=0) for completion in group]
            pack = build_pack(rows)
            with torch.no_grad():
                count.append(model(pack=pack).experts != pack.fields.experts)
        return torch.cat(count).float().mean().item()

    assert all(len(c.experts) == len(c.token_ids) for group in found for c in group)
    assert differing() == 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate.weight" in name:
                parameter.normal_()
    assert differing() > 0.5


def test_a_dense_model_has_no_experts(engine):
    assert engine.generate(requests())[0][0].experts is None
