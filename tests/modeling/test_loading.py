"""Models are loaded whole, from where the option says, or one sentence says why not."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import make_model
from transformers import BloomConfig, GPT2Config, NemotronConfig

from open_r1.errors import UserError
from open_r1.modeling.checkpoint import Checkpoint, base_name, has_only_adapters
from open_r1.modeling.loading import context_length, load_causal_lm, load_config, load_generation_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


def test_a_folder_of_adapters_leads_to_the_weights_that_they_were_trained_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    for name in (str(tmp_path / "lora"), "~/lora"):
        assert has_only_adapters(name)
        assert base_name(name) == "some/base"
    (tmp_path / "lora/config.json").write_text("{}")
    assert base_name("~/lora") == "~/lora"


def test_a_model_has_the_weights_of_its_folder_in_the_dtype_that_is_asked_for(folder):
    saved = load_file(folder / "model.safetensors")
    for dtype in (torch.float32, torch.bfloat16):
        model = load_causal_lm(Checkpoint(str(folder)), dtype)
        name, tensor = next(iter(saved.items()))
        assert torch.equal(model.state_dict()[name], tensor.to(dtype))


def test_context_lengths_are_those_of_the_configuration(folder):
    config = load_config(Checkpoint(str(folder)))
    assert context_length(config) == json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    assert context_length(BloomConfig()) is None
    assert context_length(GPT2Config(n_positions=77)) == 77


def test_a_generation_config_may_be_missing(tmp_path):
    assert load_generation_config(Checkpoint(str(tmp_path))) is None
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 5}))
    assert load_generation_config(Checkpoint(str(tmp_path))).eos_token_id == 5


@pytest.mark.parametrize("option", ["model", "model_name_or_path"])
def test_weights_without_a_tensor_are_refused(folder, tmp_path, option):
    shutil.copytree(folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "norm" not in k}, tmp_path / "model/model.safetensors")
    with pytest.raises(
        UserError, match=rf"^{option} is '.*model': the weights lack \d+ tensors of the model, the first is model\."
    ):
        load_causal_lm(Checkpoint(str(tmp_path / "model"), option=option), torch.float32)


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors"])
def test_what_cannot_be_loaded_is_one_sentence_with_option_and_reason(folder, tmp_path, damage):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / damage).write_text("{")
    with pytest.raises(UserError, match=r"^model is '.*', which cannot be loaded as a causal language model: ."):
        load_causal_lm(Checkpoint(str(tmp_path / "model"), option="model"), torch.float32)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_pointers_of_git_lfs_are_called_that(folder, tmp_path, file):
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n")
    with pytest.raises(UserError, match=rf"^model: .*{file} is a Git LFS pointer, not the file itself: run git lfs pu"):
        load_causal_lm(Checkpoint(str(tmp_path / "model"), option="model"), torch.float32)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import package_that_is_nowhere", "package_that_is_nowhere"),
        ("raise KeyError('rope')", "KeyError: 'rope'"),
        ("raise AttributeError('no theta')", "AttributeError: no theta"),
    ],
)
def test_what_the_code_of_a_models_authors_raises_is_a_sentence(folder, tmp_path, code, said):
    shutil.copytree(folder, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": own}))
    (tmp_path / "model/modeling_own.py").write_text(
        "from transformers import PretrainedConfig\n\n\nclass OwnConfig(PretrainedConfig):\n    model_type = 'own'\n"
        f"\n\n{code}\n"
    )
    with pytest.raises(UserError, match=rf"^model is .*cannot be loaded as a causal language model: .*{said}"):
        load_config(Checkpoint(str(tmp_path / "model"), trust_remote_code=True, option="model"))


def test_a_configuration_that_the_code_of_a_model_does_not_expect_is_a_sentence(folder, tmp_path):
    NemotronConfig().save_pretrained(tmp_path)  # without num_key_value_heads, by which the model divides
    shutil.copy(folder / "model.safetensors", tmp_path)
    with pytest.raises(UserError, match=r"^model is .*: TypeError: unsupported operand"):
        load_causal_lm(Checkpoint(str(tmp_path), option="model"), torch.float32)
