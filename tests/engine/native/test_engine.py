"""The native engine on a CPU, in float32, writes what the transformers engine writes for the same seeds."""

import copy
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_models import KINDS, VOCAB, copy_of, make_model
from tokenizers import Tokenizer, models
from toys import make_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from open_r1.engine.native.decoder import Decoder
from open_r1.engine.native.engine import NativeEngine, NativeOptions, automatic_limit
from open_r1.engine.native.loop import Ended, texts_of
from open_r1.engine.protocol import Request, Sampling
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.errors import UserError

PROMPTS = [[40, 41, 42], [50], list(range(20, 50)), [70, 71], [9] * 17]
SAMPLINGS = [
    {"n": 3},
    {"temperature": 0.0},
    {"n": 2, "temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 5},
    {"n": 4, "min_p": 0.05, "stop_token_ids": (5, 6, 7, 8, 9, 10), "logprobs": False},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return AutoTokenizer.from_pretrained(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model():
    return make_model()


def mixed_requests(max_tokens=20):
    return [
        Request(i, prompt, Sampling(**{"seed": i, "max_tokens": max_tokens, "stop_token_ids": (3, 4)} | options))
        for i, (prompt, options) in enumerate(zip(PROMPTS, SAMPLINGS, strict=True))
    ]


def open_native(model, tokenizer, *, pages=None, max_model_len=64, **options):
    engine = NativeEngine(
        copy_of(model), tokenizer, max_model_len=max_model_len, options=NativeOptions(**{"max_num_seqs": 8, **options})
    )
    if pages is not None:
        engine._affordable_pages = lambda: pages
    return engine


def assert_equal(found, expected):
    for group, other in zip(found, expected, strict=True):
        assert [c.token_ids for c in group] == [c.token_ids for c in other]
        assert [(c.text, c.finish_reason) for c in group] == [(c.text, c.finish_reason) for c in other]
        for a, b in zip(group, other, strict=True):
            assert (a.logprobs is None) == (b.logprobs is None)
            assert a.logprobs is None or a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_writes_what_transformers_writes(kind, tokenizer):
    model = make_model(kind)
    expected = TransformersEngine(model, tokenizer).generate(mixed_requests())
    assert_equal(open_native(model, tokenizer, page_size=8).generate(mixed_requests()), expected)


@pytest.mark.parametrize("kind", ["BPE", "WordPiece"])
@pytest.mark.parametrize("cleans_up", [False, True])
@pytest.mark.parametrize("insists", [False, True])
def test_texts_are_those_that_transformers_decodes(tokenizer, kind, cleans_up, insists):
    if kind == "WordPiece":
        backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(["[UNK]", "a", ".", ",", "n't"])}))
        tokenizer, ids = PreTrainedTokenizerFast(tokenizer_object=backend), [1, 2, 1, 4, 3]
    else:
        tokenizer, ids = copy.deepcopy(tokenizer), tokenizer.encode("a . a n't ,", add_special_tokens=False)
    tokenizer.clean_up_tokenization_spaces = cleans_up
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = insists
    ended = [Ended(SimpleNamespace(tokens=ids), stopped, failed=False) for stopped in (False, True)]
    assert texts_of(tokenizer, ended) == [
        tokenizer.decode(tokens, skip_special_tokens=True) for tokens in (ids, ids[:-1])
    ]


@pytest.mark.parametrize("request_number", range(len(PROMPTS)))
def test_tokens_stream_as_they_are_written(model, tokenizer, request_number):
    request = mixed_requests()[request_number]
    engine = open_native(model, tokenizer, page_size=8)
    [whole, *_] = engine.generate([request])[0]
    pieces = [piece for piece in engine.stream_tokens(request) if piece]
    expected = whole.token_ids[:-1] if whole.finish_reason == "stop" else whole.token_ids
    assert [token for piece in pieces for token in piece] == expected
    assert len(pieces) > 1 or len(expected) <= 8


def test_a_reader_who_leaves_frees_the_engine(model, tokenizer):
    engine = open_native(model, tokenizer)
    request = Request(0, [40, 41], Sampling(max_tokens=60))
    tokens = engine.stream_tokens(request)
    next(tokens)
    tokens.close()
    assert not engine._loop.busy and engine._loop.scheduler.pool.free == engine._loop.scheduler.pool.total
    assert len(engine.generate([request])[0][0].token_ids) == 60


@settings(max_examples=20, deadline=None)
@given(
    page_size=st.sampled_from([1, 2, 3, 7, 16, 64]),
    slots=st.integers(1, 12),
    spare_pages=st.integers(0, 12),
    order=st.permutations(range(5)),
    max_tokens=st.integers(1, 24),
)
def test_pages_batches_preemptions_and_order_change_nothing(
    model, tokenizer, page_size, slots, spare_pages, order, max_tokens
):
    """Invariant 10. With few pages to spare, completions are preempted and begun again."""
    requests = mixed_requests(max_tokens)
    expected = TransformersEngine(model, tokenizer).generate(requests)
    longest = max(len(p) for p in PROMPTS) + max_tokens
    pages = -(-longest // page_size) + 1 + spare_pages
    engine = open_native(model, tokenizer, pages=pages, max_num_seqs=slots, page_size=page_size, max_model_len=longest)
    found = dict(engine.stream(requests[i] for i in order))
    assert_equal([found[r.id] for r in requests], expected)
    scheduler = engine._loop.scheduler
    assert scheduler.pool.free == scheduler.pool.total


def test_preempted_completions_are_recomputed(model, tokenizer):
    engine = open_native(model, tokenizer, pages=18, page_size=4)
    expected = TransformersEngine(model, tokenizer).generate(mixed_requests())
    assert_equal(engine.generate(mixed_requests()), expected)
    assert engine._loop.scheduler.preemptions > 0


def test_completions_end_at_the_context_length(model, tokenizer):
    limit = model.config.max_position_embeddings
    requests = [Request(0, [40] * (limit - 3), Sampling(max_tokens=50)), Request(1, [40] * limit, Sampling(n=2))]
    found = open_native(model, tokenizer).generate(requests)
    assert_equal(found[:1], TransformersEngine(model, tokenizer).generate(requests[:1]))
    assert len(found[0][0].token_ids) == 3
    assert [(c.token_ids, c.finish_reason) for c in found[1]] == [([], "length")] * 2


def test_a_prompt_that_fills_the_context_needs_no_room(model, tokenizer):
    engine = open_native(model, tokenizer, max_model_len=1, page_size=8, pages=4)
    context = model.config.max_position_embeddings
    long, short = Request(0, [5] * (context + 40), Sampling()), Request(1, [5], Sampling(max_tokens=3))
    for found in (dict(engine.stream([long, short])), dict(enumerate(engine.generate([long, short])))):
        assert [(c.token_ids, c.finish_reason) for c in found[0]] == [([], "length")]
        assert len(found[1][0].token_ids) == 3


def test_longer_requests_grow_the_engine(model, tokenizer):
    short, long = Request("short", [40], Sampling(max_tokens=4)), Request("long", [41] * 40, Sampling(max_tokens=30))
    engine = open_native(model, tokenizer, max_model_len=8)
    found = dict(engine.stream(iter([short, long])))
    assert engine.max_model_len == 70
    reference = TransformersEngine(model, tokenizer).generate([short, long])
    assert_equal([found["short"], found["long"]], reference)


def test_a_request_that_can_never_fit_is_a_sentence_before_the_run(model, tokenizer):
    engine = open_native(model, tokenizer, pages=3, page_size=8)
    with pytest.raises(UserError, match=r"64 tokens, but their keys and values take .* GiB"):
        engine.start()


@pytest.mark.parametrize(
    ("sampling", "truncates"),
    [(Sampling(top_p=0.9), True), (Sampling(min_p=0.1), True), (Sampling(temperature=0.0, top_k=5), False)],
)
def test_a_start_prepares_the_steps_that_will_be_taken(model, tokenizer, monkeypatch, sampling, truncates):
    prepared = []
    monkeypatch.setattr(Decoder, "prepare", lambda self, truncate: prepared.append(truncate))
    engine = open_native(model, tokenizer)
    engine.start(sampling)
    assert prepared == [truncates]
    engine.generate([Request("row", [40], replace(sampling, max_tokens=3))])
    assert set(prepared) == {truncates}


def test_messages_go_through_the_chat_template(model, tokenizer):
    messages = [{"role": "user", "content": "1"}]
    ids = [i % VOCAB for i in tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)]
    tokenizer_of_small_ids = type("Small", (), {"apply_chat_template": lambda *_, **__: ids})()
    engine = open_native(model, tokenizer)
    engine.start()
    engine.tokenizer = tokenizer_of_small_ids
    greedy = Sampling(temperature=0.0, max_tokens=5)
    [by_ids], [by_messages] = engine.generate([Request("ids", ids, greedy), Request("messages", messages, greedy)])
    assert by_ids.token_ids == by_messages.token_ids


def test_requests_are_read_as_there_is_room(model, tokenizer):
    taken = []

    def lazily():
        for i in range(200):
            taken.append(i)
            yield Request(i, [40 + i % 9], Sampling(max_tokens=3))

    stream = open_native(model, tokenizer, max_num_seqs=4).stream(lazily())
    assert taken == []
    next(stream)
    assert len(taken) < 20
    assert len(list(stream)) == 199


def test_an_interrupted_stream_leaves_the_engine_ready(model, tokenizer):
    engine = open_native(model, tokenizer, page_size=4)
    for _ in engine.stream(mixed_requests()):
        break
    assert_equal(engine.generate(mixed_requests()), TransformersEngine(model, tokenizer).generate(mixed_requests()))


def test_progress_counts_every_token_once(model, tokenizer):
    counts = []
    engine = open_native(model, tokenizer, pages=18, page_size=4)
    engine.on_tokens = counts.append
    found = engine.generate(mixed_requests())
    assert sum(counts) == sum(len(c.token_ids) for group in found for c in group)


def test_logits_that_are_no_numbers_end_a_completion_as_an_error(model, tokenizer, caplog):
    broken = copy_of(model)
    with torch.no_grad():
        broken.model.embed_tokens.weight[95] = float("nan")
    engine = open_native(broken, tokenizer)
    with caplog.at_level(logging.WARNING):
        [bad], [good] = engine.generate(
            [Request(0, [50, 95], Sampling(max_tokens=6)), Request(1, [50, 41], Sampling(max_tokens=6, top_k=3))]
        )
    assert (bad.finish_reason, bad.token_ids) == ("error", [])
    assert good.finish_reason == "length"
    assert len(good.token_ids) == 6
    assert "1 completions ended because their logits were not finite" in caplog.text


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("release", [False, True])
def test_updates_are_followed(kind, release, tokenizer):
    """Invariant 6, with tied embeddings and without; `sleep` and `wake` change nothing."""
    policy = make_model(kind, seed=1)
    engine = open_native(make_model(kind, seed=0), tokenizer, release_memory=release)
    engine.generate(mixed_requests())
    addresses = [p.data_ptr() for p in engine.model.model.parameters()]
    engine.sleep()
    engine.update_weights(policy.named_parameters(), version=7)
    engine.wake()
    assert [p.data_ptr() for p in engine.model.model.parameters()] == addresses
    found = engine.generate(mixed_requests())
    assert_equal(found, TransformersEngine(policy, tokenizer).generate(mixed_requests()))
    assert {c.weights_version for group in found for c in group} == {7}


def test_too_many_stop_tokens_are_a_sentence(model, tokenizer):
    with pytest.raises(UserError, match="stop_token_ids has 17 tokens"):
        open_native(model, tokenizer).generate([Request(0, [40], Sampling(stop_token_ids=tuple(range(17))))])


def test_every_completion_is_told_as_it_ends_before_its_group_is_there(model, tokenizer):
    engine = open_native(model, tokenizer)
    told, then = [], []
    engine.on_completion = lambda name, completion: told.append((name, completion))
    ending = Sampling(n=6, max_tokens=40, seed=2, stop_token_ids=tuple(range(5, 17)))
    groups = {}
    for name, group in engine.stream([Request("a", [40, 41, 42], ending), Request("b", [50], Sampling(max_tokens=8))]):
        groups[name] = group
        then.append((name, len(told)))
    written = [(name, completion) for name, group in groups.items() for completion in group]
    assert sorted(id(c) for _, c in told) == sorted(id(c) for _, c in written)
    assert all(any(c is other for other in groups[name]) for name, c in told)
    assert len({len(c.token_ids) for c in groups["a"]}) > 1
    assert then[0][0] == "b"
    assert then[0][1] > 1  # some of a's have ended too, though not all


@pytest.mark.parametrize(
    ("longest", "memory", "limit"),
    [
        (512, 84e9, 2048),  # 1.5B, a short benchmark: more are no faster
        (4096, 84e9, 1430),  # 2.93 million tokens / 2,048
        (32768, 84e9, 512),  # most are far shorter than half of the longest
        (512, 4e9, 544),
        (4096, 1e6, 512),  # the pages limit what is admitted
    ],
)
def test_the_automatic_limit_is_what_the_cache_holds_half_done(longest, memory, limit):
    page = 28 * 2 * 2 * 64 * 128 * 2
    assert automatic_limit(longest // 64, int(memory) // page) == limit


def limit_of(engine):
    return engine.loop.scheduler.slots


def test_the_limit_is_chosen_unless_it_is_set(model, tokenizer, monkeypatch, caplog):
    engine = open_native(model, tokenizer, pages=2000, max_num_seqs=None)
    assert limit_of(engine) == 512  # on a CPU
    engine.close()
    assert not caplog.messages
    monkeypatch.setattr(engine.model, "device", SimpleNamespace(type="cuda"))
    assert engine._choose_limit(4, 3000) == engine._choose_limit(4, 3000) == 1500
    assert caplog.messages == ["The native engine decodes up to 1,500 completions at once (max_num_seqs)."]
    explicit = open_native(model, tokenizer, pages=2000, max_num_seqs=3)
    assert limit_of(explicit) == 3
    explicit.close()
