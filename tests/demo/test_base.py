import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1.demo.base import save_random_model
from open_r1.demo.programs import CODE
from open_r1.demo.sums import SUMS
from open_r1.demo.tokenizer import build_tokenizer


@pytest.mark.parametrize("task", [SUMS, CODE], ids=lambda task: task.name)
def test_shipped_base_is_small_and_its_weights_are_safetensors(task):
    assert sum(file.stat().st_size for file in task.base.iterdir()) <= 4 * 2**20
    assert not list(task.base.glob("*.bin"))
    assert all(tensor.isfinite().all() for tensor in load_file(task.base / "model.safetensors").values())


@pytest.mark.parametrize("task", [SUMS, CODE], ids=lambda task: task.name)
def test_shipped_base_is_an_ordinary_folder_of_about_a_million_parameters(task):
    model = AutoModelForCausalLM.from_pretrained(task.base)
    assert model.config.model_type == "qwen2"
    assert 0.8e6 < model.num_parameters() < 1.2e6


@pytest.mark.parametrize("task", [SUMS, CODE], ids=lambda task: task.name)
def test_shipped_tokenizer_is_the_one_that_the_code_builds(task):
    shipped, built = AutoTokenizer.from_pretrained(task.base), build_tokenizer(task.words)
    assert shipped.get_vocab() == built.get_vocab()
    assert shipped.chat_template == built.chat_template


@pytest.mark.parametrize("task", [SUMS, CODE], ids=lambda task: task.name)
def test_generation_ends_at_the_end_of_a_turn(task):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(task.base), AutoTokenizer.from_pretrained(task.base)
    ends = model.generation_config.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in (ends if isinstance(ends, list) else [ends])


def test_random_model_is_given_by_its_seed(tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        save_random_model(tmp_path / name, SUMS.words, seed)
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])
