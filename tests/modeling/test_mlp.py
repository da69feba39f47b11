"""MLPs in chunks of tokens, and checkpoints that wait on the CPU: the same gradients in less memory."""

import pytest
import torch
from saved import saved_bytes
from tiny_models import documents, gradients, make

from open_r1.errors import UserError
from open_r1.modeling import offloading
from open_r1.modeling.mlp import chunk_mlps, unchunk_mlps
from open_r1.modeling.offloading import offload_checkpoints
from open_r1.training.packing import build_pack

SEQUENCES = documents([20, 33, 8])
TOKENS = 61
CHECKPOINTING = {"use_reentrant": False}


def loss_and_gradients(model):
    pack = build_pack(SEQUENCES)
    loss = (model(pack=pack).logprobs * pack.fields.weight).sum()
    loss.backward()
    return {"loss": loss.detach()} | gradients(model)


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6 * value.abs().max().item(), msg=name)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_window", "cohere2_scaled"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 60, TOKENS])
def test_chunks_change_neither_loss_nor_gradients(kind, checkpointing, chunk):
    model = make(kind)
    wanted = loss_and_gradients(model)
    chunk_mlps(model, chunk)
    if checkpointing:
        model.gradient_checkpointing_enable(CHECKPOINTING)
    assert_same(loss_and_gradients(model), wanted)


def test_a_chunked_mlp_keeps_its_input_only():
    model = make("llama", num_hidden_layers=1)
    whole = saved_bytes(model, SEQUENCES)
    chunk_mlps(model, 7)
    inside = 4 * model.config.intermediate_size  # gate, its activation, up, their product
    assert whole - saved_bytes(model, SEQUENCES) == TOKENS * inside * 4


def test_chunks_can_be_undone_and_set_again():
    model = make("llama", num_hidden_layers=1)
    whole = saved_bytes(model, SEQUENCES)
    chunk_mlps(model, 7)
    chunked = saved_bytes(model, SEQUENCES)
    unchunk_mlps(model)
    assert saved_bytes(model, SEQUENCES) == whole
    chunk_mlps(model, 7)
    assert saved_bytes(model, SEQUENCES) == chunked < whole


def test_a_model_of_experts_alone_has_nothing_to_cut():
    with pytest.raises(
        UserError, match="mlp_chunk_tokens is 8, but models of type gpt_oss have no MLP that all tokens"
    ):
        chunk_mlps(make("gpt_oss_sinks"), 8)


@pytest.mark.parametrize("kwargs", [CHECKPOINTING, {"use_reentrant": True}])
def test_checkpoints_wait_on_the_cpu(monkeypatch, kwargs):
    model = make("llama")
    wanted = loss_and_gradients(model)
    moved = []

    class Recorded(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self, pin_memory):
            assert pin_memory
            super().__init__(lambda x: moved.append(x.numel()) or x.clone(), lambda x: x)

    monkeypatch.setattr(offloading, "save_on_cpu", Recorded)
    model.gradient_checkpointing_enable(kwargs)
    model.enable_input_require_grads()
    offload_checkpoints(model)
    assert_same(loss_and_gradients(model), wanted)
    layers = model.config.num_hidden_layers
    assert sum(moved) == layers * TOKENS * model.config.hidden_size
