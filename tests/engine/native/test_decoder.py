import functools
from types import SimpleNamespace

import pytest
import torch
from native_models import copy_of, make_model
from torch._dynamo.testing import CompileCounterWithBackend

from open_r1.engine.native.decoder import Decoder, graph_sizes
from open_r1.engine.native.loop import Loop
from open_r1.engine.native.model import NativeModel
from open_r1.engine.native.pages import SCRATCH, PagePool
from open_r1.engine.native.scheduler import Scheduler
from open_r1.engine.protocol import Sampling


class NoText:
    """A tokenizer whose texts are empty."""

    is_fast = clean_up_tokenization_spaces = False

    def batch_decode(self, rows, **_):
        return [""] * len(rows)


def decoder_of(model, slots=40, compiler=None):
    return Decoder(NativeModel(copy_of(model)), slots, 16, 41, 16, compiler)


def tokens_of(decoder, completions):
    loop = Loop(decoder, Scheduler(decoder.spare, PagePool(41), 16), NoText())
    loop.add(0, [40, 41], Sampling(n=completions), 9)
    while loop.busy:
        loop.turn()
        for _, group in loop.take():
            return [c.token_ids for c in group]
    raise AssertionError("nothing was finished")


@pytest.mark.parametrize(("kind", "layers", "kinds"), [("qwen2", 4, 1), ("gemma3_text", 4, 2), ("cohere2", 4, 2)])
def test_layers_of_a_kind_are_compiled_once_for_all_batches(kind, layers, kinds):
    windows = {"layer_types": ["sliding_attention", "full_attention"] * (layers // 2)} if kinds == 2 else {}
    model = make_model(kind, num_hidden_layers=layers, **windows)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = decoder_of(model, compiler=functools.partial(torch.compile, backend=counter, dynamic=True))
    plain = decoder_of(model)
    for completions in (3, 9, 17, 40):
        assert tokens_of(compiled, completions) == tokens_of(plain, completions)
    assert counter.frame_count == kinds


def test_the_first_prefill_runs_like_any_other_and_leaves_no_trace(monkeypatch):
    decoder, model = decoder_of(make_model("qwen2")), []
    hidden = decoder.model.hidden
    monkeypatch.setattr(
        decoder.model, "hidden", lambda *a, **options: model.append(set(options)) or hidden(*a, **options)
    )
    decoder.first_prefill()
    assert decoder.cache[:, SCRATCH].any()
    assert not decoder.cache[:, SCRATCH + 1 :].any()
    tokens_of(decoder, 3)
    assert model[0] == model[1] == {"storage", "layout"}


def test_graphs_are_captured_after_a_first_prefill(monkeypatch):
    decoder, calls = decoder_of(make_model("qwen2")), []
    monkeypatch.setattr(decoder.model, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(decoder, "first_prefill", lambda: calls.append("prefill"))
    monkeypatch.setattr(decoder, "capture", lambda truncate: calls.append(truncate))
    decoder.prepare(True)
    assert calls == ["prefill", True]


def test_graphs_fit_any_number_of_rows():
    for slots in (1, 7, 8, 9, 100, 512, 1000, 4096):
        sizes = graph_sizes(slots)
        assert sizes == sorted(set(sizes), reverse=True)
        assert sizes[0] == slots
        for rows in range(1, slots + 1):
            size = min(s for s in sizes if s >= rows)
            assert size <= max(8, 1.5 * rows)
