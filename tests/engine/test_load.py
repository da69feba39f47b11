"""`load_engine`: text and conversations in, completions out."""

import shutil

import pytest
import torch
from fake_openai import fake_server
from toys import make_model, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from open_r1 import UserError, load_engine
from open_r1.engine.opening import open_engine
from open_r1.engine.options import EngineOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "model"
    make_tokenizer(folder)
    return make_model(folder, initializer_range=0.5)  # what it writes depends on what it is asked


@pytest.fixture(scope="module")
def engine(model):
    with load_engine(model) as engine:
        yield engine


def texts(groups):
    return [[completion.text for completion in group] for group in groups]


def test_text_and_the_same_conversation_get_the_same_completions_in_order(engine):
    told = [{"role": "system", "content": "Count."}, {"role": "user", "content": "What is 2+3?"}]
    groups = engine.generate(["What is 1+2?", told], n=3, max_tokens=8, seed=5)
    assert [len(group) for group in groups] == [3, 3]
    assert len(set(texts(groups)[0])) > 1
    turns = [[{"role": "user", "content": "What is 1+2?"}], told]
    assert texts(engine.generate(turns, n=3, max_tokens=8, seed=5)) == texts(groups)
    asked = engine.generate(["What is 1+2?", "What is 2+3?"], n=3, max_tokens=8, seed=5, system_prompt="Count.")
    assert texts(asked)[1] == texts(groups)[1] and texts(asked)[0] != texts(groups)[0]
    assert texts(engine.generate(["What is 1+2?", told], n=3, max_tokens=8, seed=6)) != texts(groups)


def test_greedy_completions_are_those_of_transformers(engine, model):
    tokenizer, plain = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    turn = [{"role": "user", "content": "What is 1+2?"}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    expected = plain.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :].tolist()
    assert engine.generate(["What is 1+2?"], temperature=0, max_tokens=6)[0][0].token_ids == expected


def test_scores_with_a_softcap_are_computed_with_it(model, tmp_path):
    """transformers' sdpa, its default for Gemma 2, leaves the softcap out."""
    shutil.copytree(model, tmp_path / "gemma")
    config = AutoConfig.for_model(
        "gemma2",
        **{"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "attn_logit_softcapping": 0.05},
        **{"initializer_range": 0.5, "max_position_embeddings": 256, "query_pre_attn_scalar": 1},
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gemma")
    ids = torch.arange(3, 60)[None]

    def logits(attention):
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "gemma", attn_implementation=attention)
        with torch.no_grad():
            return plain(input_ids=ids).logits

    with torch.no_grad():
        found = open_engine(EngineOptions(str(tmp_path / "gemma"), engine="transformers")).engine.model(ids).logits
    torch.testing.assert_close(found, logits("eager"), rtol=0, atol=1e-4)
    assert (found - logits("sdpa")).abs().max() > 1e-2


def test_a_completion_ends_where_the_context_does(engine):
    (completion,) = engine.generate(["a" * 480], max_tokens=400)[0]
    assert completion.finish_reason == "length" and 0 < len(completion.token_ids) < 40
    with pytest.raises(UserError, match=r"prompts\[1\] fills the model's context of 512 tokens: shorten it"):
        engine.generate(["short", "a" * 600])


def test_a_server_is_asked_for_conversations():
    with fake_server() as server, load_engine("m", base_url=server.url) as engine:
        assert texts(engine.generate(["1+2?", "2+3?"], max_tokens=5)) == [["re: 1+2?"], ["re: 2+3?"]]
    assert {body["max_tokens"] for body in server.bodies} == {5}


def test_no_prompts_get_no_completions(engine):
    assert engine.generate([]) == []


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        ("What is 1+2?", {}, "prompts is a single prompt: expected a list"),
        ([{"role": "user", "content": "What is 1+2?"}], {}, "prompts is a single prompt: expected a list"),
        (["  "], {}, r"prompts\[0\]: the prompt is empty"),
        (["1+2?", [{"role": "user"}]], {}, r"prompts\[1\], message 1: expected messages with role and content"),
        ([[{"role": "assistant", "content": "3"}]], {}, r"prompts\[0\]: the prompt ends with an assistant message"),
        (["1+2?"], {"n": 0}, "n is 0 and max_tokens 512: both must be at least 1"),
        (["1+2?"], {"temperature": -1.0}, "temperature is -1.0"),
        (["1+2?"], {"top_p": 0.0}, "top_p is 0.0"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(engine, prompts, options, said):
    with pytest.raises(UserError, match=said):
        engine.generate(prompts, **options)


def test_bad_engines_are_refused_in_a_sentence(model, tmp_path):
    with pytest.raises(UserError, match="engine is 'vlm': expected one of auto, "):
        load_engine(model, "vlm")
    with pytest.raises(UserError, match=r"unknown option 'dtyp'\. Did you mean 'dtype'"):
        load_engine(model, dtyp="float32")
    with pytest.raises(UserError, match="there is no such folder"):
        load_engine(tmp_path / "nowhere")
    with pytest.raises(UserError, match="model is a NoneType: expected a hub id or a local folder"):
        load_engine(None)
