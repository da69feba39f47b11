"""Compiled layers in the trainers: packs of any size compile nothing after the first step."""

import random

import pytest
import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from plain_kernels import PlainKernels
from tiny_models import compile_layers_with, compile_uncompiled, documents, make
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from toys import make_model, make_tokenizer
from transformers import TrainerCallback

from open_r1 import GRPOTrainer, SFTTrainer
from open_r1.configs import GRPOConfig, ModelConfig, SFTConfig
from open_r1.engine.protocol import Completion
from open_r1.modeling import flash
from open_r1.modeling.compiling import compile_layers
from open_r1.modeling.mlp import chunk_mlps
from open_r1.training.activations import activation_callbacks
from open_r1.training.model import add_adapters
from open_r1.training.packing import build_pack

GROUP = 4
WIDTH = 32
"""Hidden size of `make_model`."""
STEPS: list[tuple[int, list[int], bool]] = [
    (WIDTH, [9, 30, 12, 20, 8, 8, 8, 8], True),
    (60, [100, 90, 80, 70, 60, 50, 40, 30], True),
    (60, [1, 2, 1, 1, 1, 1, 1, 1], True),
    (60, [20, 20, 20, 20, 20, 20, 20, 20], False),
    (2 * WIDTH, [300, 300, 300, 300, 1, 1, 1, 1], True),
]
"""Of each step: tokens per micro-batch, lengths of its completions, and whether rewards differ within groups."""


class Compilations(TrainerCallback):
    """How many graphs were compiled in each step."""

    def __init__(self):
        self.total, self.steps = 0, []

    def on_step_begin(self, args, state, control, **kwargs):
        if self.steps and state.global_step < len(STEPS):
            args.max_tokens_per_microbatch = STEPS[state.global_step][0]
        self.total = counters["stats"]["unique_graphs"]

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(counters["stats"]["unique_graphs"] - self.total)


class ScriptedEngine:
    """Samples random completions of the lengths in `STEPS`, whose text is their reward."""

    def __init__(self):
        self.round = -1

    def stream(self, requests):
        self.round += 1
        _, lengths, differ = STEPS[self.round]
        rng = random.Random(self.round)
        for i, request in enumerate(requests):
            ids = [[rng.randrange(300) for _ in range(n)] for n in lengths[i * GROUP : (i + 1) * GROUP]]
            yield (
                request.id,
                [Completion(str(j % 2 * differ), c, [-5.0] * len(c), "stop", 0) for j, c in enumerate(ids)],
            )

    def update_weights(self, named_tensors, version): ...

    def sleep(self): ...

    def wake(self): ...

    def close(self): ...


def text_as_reward(completions, **columns):
    return [float(messages[0]["content"]) for messages in completions]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_tokenizer(folder)
    make_model(folder, arch="qwen2")
    return folder


@pytest.fixture(autouse=True)
def compiled_as_on_a_gpu(monkeypatch):
    """Attention is one operation within a layer, as on a GPU. Graphs run as they are."""
    compile_uncompiled(monkeypatch)
    stand_in = PlainKernels()
    monkeypatch.setattr(flash, "kernels", lambda: stand_in)
    monkeypatch.setattr(flash, "is_used", lambda *args: True)
    torch.compiler.reset()
    counters.clear()


def options(tmp_path, checkpointing):
    return {
        "output_dir": str(tmp_path / "out"),
        "max_steps": len(STEPS),
        "max_tokens_per_microbatch": STEPS[0][0],
        "gradient_checkpointing": checkpointing,
        "torch_compile": True,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


@pytest.mark.parametrize(("checkpointing", "lora"), [(False, False), (True, True)])
def test_grpo_compiles_in_its_first_step_only(model, tmp_path, checkpointing, lora):
    seen = Compilations()
    problems = [{"prompt": "What is 1 + 2?"}, {"prompt": "And 30 + 4?"}] * len(STEPS)
    trainer = GRPOTrainer(
        ModelConfig(model_name_or_path=str(model), use_peft=lora, lora_dropout=0.0),
        GRPOConfig(
            **options(tmp_path, checkpointing),
            num_generations=GROUP,
            per_device_train_batch_size=2 * GROUP,
            max_completion_length=400,
        ),
        reward_funcs=text_as_reward,
        train_dataset=problems,
        engine=ScriptedEngine(),
        callbacks=[seen],
    )
    trainer.train()
    assert seen.steps[0] > 0
    assert seen.steps[1:] == [0] * (len(STEPS) - 1)


def test_sft_compiles_in_its_first_step_and_its_first_evaluation_only(model, tmp_path):
    seen = Compilations()
    texts = [{"text": "1 + 2 = 3. " * n} for n in (1, 3, 7, 2, 11, 5, 1, 1)]
    trainer = SFTTrainer(
        str(model),
        SFTConfig(
            **options(tmp_path, checkpointing=True),
            per_device_train_batch_size=3,
            packing=True,
            max_length=WIDTH,
            eval_strategy="steps",
            eval_steps=1,
        ),
        train_dataset=texts,
        eval_dataset=texts[:3],
        callbacks=[seen],
    )
    trainer.train()
    assert seen.steps[0] > 0
    assert seen.steps[1:] == [0] * (len(STEPS) - 1)


class Products:
    """A compiler that partitions graphs as PyTorch's own one does, and counts the matrix products that they compute."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        compile_graph = aot_autograd(
            fw_compiler=self.counted, bw_compiler=self.counted, partition_fn=min_cut_rematerialization_partition
        )
        return compile_graph(graph, inputs)

    def counted(self, graph, inputs):
        kinds = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        number = sum(node.target in kinds for node in graph.graph.nodes)

        def run(*args):
            self.count += number
            return graph(*args)

        return make_boxed_func(run)


LAYERS = 2
PRODUCTS = 7
"""Of a layer: queries, keys, values, output, gate, up, down."""


def compiled_model(checkpointing, lora=False, layers=LAYERS, dropout=0.0, **given):
    """As the trainers prepare it, with an MLP that is much wider than the hidden state."""
    model = make("qwen2", intermediate_size=5 * WIDTH, num_hidden_layers=layers)
    args = SFTConfig(output_dir="out", torch_compile=True, use_cpu=True, report_to="none", **given)
    if args.mlp_chunk_tokens is not None:
        chunk_mlps(model, args.mlp_chunk_tokens)
    compile_layers(model)
    if lora:
        model = add_adapters(
            model, ModelConfig(model_name_or_path="qwen2", use_peft=True, lora_dropout=dropout), seed=0
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.2)
        model.enable_input_require_grads()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for callback in activation_callbacks(model, args):
            callback.on_train_begin(None, None, None, model=model)
    return model


@pytest.mark.parametrize(("lora", "half"), [(False, False), (True, True)])
def test_checkpointed_layers_compute_the_same_gradients_and_only_two_products_again(monkeypatch, lora, half):
    """Those that expand to the MLP's inner size. An adapter's products are small."""
    products = Products()
    compile_layers_with(monkeypatch, products)
    stored, checkpointed = compiled_model(False, lora), compiled_model(True, lora)
    for lengths in ([30, 9], [WIDTH], [40, 3]):
        pack = build_pack(documents(lengths), "cpu")
        counts = []
        for model in (stored, checkpointed):
            products.count = 0
            differentiate(model, pack, "cpu", half)
            counts.append(products.count)
        if not lora:
            assert counts == [3 * LAYERS * PRODUCTS, LAYERS * (3 * PRODUCTS + 2)]
        for name, parameter in stored.named_parameters():
            torch.testing.assert_close(parameter.grad, checkpointed.get_parameter(name).grad, rtol=0, atol=0)


def kept_numbers(layers):
    """Numbers of four bytes that a checkpointed model with so many layers keeps for its backward pass, per token."""
    model, pack, found = compiled_model(True, layers=layers), build_pack(documents([30, 34]), "cpu"), {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack_tensor(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack_tensor, lambda tensor: tensor):
        out = model(pack=pack).logprobs
    del out
    return sum(found.values()) / 4 / pack.num_tokens


def test_a_checkpointed_layer_keeps_its_input_and_what_surrounds_attention(monkeypatch):
    """Queries, keys, values, the answer of attention with a number per head, and the product that follows."""
    compile_layers_with(monkeypatch, Products())
    heads, keys = 4, WIDTH // 2
    assert kept_numbers(4) - kept_numbers(3) == WIDTH + WIDTH + 2 * keys + WIDTH + heads + WIDTH


def test_checkpoints_are_around_layers_with_dropout(monkeypatch):
    """Not all versions of PyTorch can draw the same numbers again in a graph."""
    products = Products()
    compile_layers_with(monkeypatch, products)
    model = compiled_model(True, lora=True, dropout=0.5)
    differentiate(model, build_pack(documents([30, 9]), "cpu"), "cpu", half=False)
    whole, forward = products.count, 3 * PRODUCTS  # each with an adapter of two products
    adapters_backward = 2 * 2 * PRODUCTS
    frozen_backward = PRODUCTS
    assert whole == LAYERS * (2 * forward + adapters_backward + frozen_backward)


@pytest.mark.parametrize("given", [{"mlp_chunk_tokens": 8}, {"fits": False}])
def test_checkpoints_are_around_layers_with_several_graphs(monkeypatch, given):
    """Their gradients are equal too, and if attention is one operation, it is not computed again."""
    fits = given.pop("fits", True)
    monkeypatch.setattr(flash, "fits", lambda q, v: fits)
    stored, checkpointed = compiled_model(False, **given), compiled_model(True, **given)
    pack = build_pack(documents([30, 9]), "cpu")
    for model in (stored, checkpointed):
        flash.kernels().calls = 0
        differentiate(model, pack, "cpu", half=False)
        assert flash.kernels().calls == fits * LAYERS
    for name, parameter in stored.named_parameters():
        torch.testing.assert_close(parameter.grad, checkpointed.get_parameter(name).grad)


MODEL_ON_A_GPU = {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1024}


def three_models():
    """With equal weights: for compiled layers, for plain layers, and for float32. With larger weights, scores are so
    large that bfloat16 leaves 40% of error in the gradients."""
    return [make("qwen2", std=0.04, **MODEL_ON_A_GPU, max_position_embeddings=16384) for _ in range(3)]


def differentiate(model, pack, device, half, skip=0):
    """Accumulates the gradients of a mean of logprobs without the first `skip`."""
    model.zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=half):
        model(pack=pack).logprobs[skip:].sum().div(pack.num_tokens).backward()


def worse_gradients(model, plain, exact):
    """The parameters of `model` whose gradients are farther from those of `exact` than the gradients of `plain` are.
    Rounding gives ratios of distances from 0.9 to 1.2. Gradients of 0 are noise in all three."""
    total = torch.stack([p.grad.norm() for p in exact.parameters()]).norm()
    found = {}
    for name, parameter in exact.named_parameters():
        ours, theirs = ((m.get_parameter(name).grad - parameter.grad).norm() for m in (model, plain))
        if not ours <= 1.5 * theirs + 1e-6 * total:
            found[name] = (ours / theirs).item()
    return found


def test_gradients_of_compiled_layers_are_as_near_to_float32_as_those_of_plain_layers():
    """And the comparison notices that one of 40 documents is missing."""
    model, plain, exact = three_models()
    compile_layers(model)
    pack = build_pack(documents([20] * 40), "cpu")
    for each in (model, plain, exact):
        differentiate(each, pack, "cpu", half=each is not exact)
    assert not worse_gradients(model, plain, exact)
    differentiate(model, pack, "cpu", half=True, skip=12)  # what is learned of a document
    assert len(worse_gradients(model, plain, exact)) == len(list(exact.parameters()))


@pytest.mark.gpu
def test_kernels_of_a_gpu_are_compiled_for_the_first_pack_only(monkeypatch):
    """The same for what the compiler and flash-attn-4 decide by the size of a pack. Gradients stay as good as those of
    plain layers."""
    monkeypatch.undo()
    model, plain, exact = (each.cuda() for each in three_models())
    compile_layers(model)
    compiled = []
    for lengths in ([6000, 6000], [150, 150], [20] * 300, [40], [2]):
        pack = build_pack(documents(lengths), "cuda")
        for each in (model, plain, exact):
            differentiate(each, pack, "cuda", half=each is not exact)
        compiled.append((counters["stats"]["unique_graphs"], len(flash_kernels())))
        assert not worse_gradients(model, plain, exact), lengths
    assert compiled[0][0] > 0
    assert compiled[1:] == compiled[:-1]


def flash_kernels():
    """The kernels of flash-attn-4 that were compiled or loaded so far, if it is installed."""
    if flash.kernels() is None:
        return []
    from flash_attn.cute import interface

    caches = [getattr(value, "compile_cache", None) for value in vars(interface).values()]
    return [key for cache in caches if cache is not None for key in cache.cache]
