"""What cannot be trained is told from the configuration, with the model type and a remedy."""

from importlib.util import find_spec

import pytest
from tiny_models import make
from transformers import (
    CONFIG_MAPPING,
    BertConfig,
    BloomConfig,
    DeepseekV4Config,
    Emu3Config,
    FalconConfig,
    Gemma3nConfig,
    GPTJConfig,
    Lfm2Config,
    LlamaConfig,
    MptConfig,
    MusicgenConfig,
    PhimoeConfig,
    Qwen3_5TextConfig,
    T5Config,
)

from open_r1.errors import UserError
from open_r1.modeling.architectures import can_share_prompts, check_sequence_parallel, check_supported, skeleton

MUSICGEN = {"text_encoder": "t5", "audio_encoder": "encodec", "decoder": "musicgen_decoder"}
REFUSED = {
    "bloom": (BloomConfig(), "its attention cannot be replaced"),
    "falcon": (FalconConfig(), "its attention cannot be replaced"),
    "gptj": (GPTJConfig(), "its attention cannot be replaced"),
    "mpt": (MptConfig(), "its attention cannot be replaced"),
    "bert": (BertConfig(), "it reads in both directions"),
    "t5": (T5Config(), "it has an encoder and a decoder"),
    "musicgen": (
        MusicgenConfig(**{part: {"model_type": kind} for part, kind in MUSICGEN.items()}),
        "it has an encoder and a decoder",
    ),
    "phimoe": (PhimoeConfig(sliding_window=100), "its attention gets its window only from masks"),
    "emu3": (Emu3Config(), "transformers could not load the saved checkpoint of its text"),
    "deepseek_v4": (DeepseekV4Config(), "it has layers of type "),
    "llama": (LlamaConfig(quantization_config={"quant_method": "awq"}), r"its weights are quantized \(awq\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_architectures_that_cannot_be_trained_are_refused_by_name(kind):
    config, reason = REFUSED[kind]
    with pytest.raises(
        UserError, match=rf"models of type {kind} cannot be trained here: {reason}.*docs/models.md lists"
    ):
        check_supported(config)


def test_layers_of_an_unknown_type_are_refused():
    config = make("llama").config
    config.layer_types = ["full_attention", "new_attention"]
    with pytest.raises(UserError, match=r"llama.*new_attention"):
        check_supported(config)


def test_prompts_are_shared_only_where_nothing_but_attention_mixes_tokens():
    assert can_share_prompts(make("gpt_oss_sinks"))
    assert not can_share_prompts(make("qwen3_5"))


def test_windows_as_long_as_the_context_change_nothing():
    check_supported(PhimoeConfig(sliding_window=4096, max_position_embeddings=4096))


@pytest.mark.slow
def test_every_configuration_of_transformers_is_accepted_or_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    judged = 0
    for kind in CONFIG_MAPPING:
        try:
            config = CONFIG_MAPPING[kind]()
        except Exception:  # some have no defaults, or read the hub
            continue
        judged += 1
        try:
            check_supported(config)
        except UserError as error:
            assert "\n" not in str(error)
    assert judged > 500


@pytest.mark.parametrize(
    ("config", "size", "sentence"),
    [
        (
            LlamaConfig(hidden_size=96, num_attention_heads=12),
            8,
            "does not divide the model's 12 attention heads: .* 1, 2, 3, 4, 6, 12",
        ),
        (Qwen3_5TextConfig(num_hidden_layers=4), 2, "qwen3_5_text .* pass a state .*GatedDeltaNet.* Set it to 1"),
        (Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]), 2, "lfm2 .* pass a state .*Conv"),
        (
            LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
            2,
            "llama .* embeddings .dynamic. depend",
        ),
    ],
)
def test_packs_that_cannot_be_split_over_processes_are_refused(config, size, sentence):
    check_sequence_parallel(config, 1)
    with pytest.raises(UserError, match=f"sequence_parallel_size is {size}, .*{sentence}"):
        check_sequence_parallel(config, size)


def test_fewer_key_value_heads_than_processes_are_no_obstacle():
    check_sequence_parallel(
        LlamaConfig(hidden_size=56, num_attention_heads=28, num_key_value_heads=4, num_hidden_layers=1), 7
    )


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_model_that_needs_other_packages_names_them():
    with pytest.raises(UserError, match=r"models of type gemma3n need other packages: pip install .*timm\.$"):
        skeleton(Gemma3nConfig())
