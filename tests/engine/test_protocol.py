"""What every engine takes: samplings and prompts."""

from functools import partial

import numpy as np
import pytest
from toys import make_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1.engine.native.engine import NativeEngine
from open_r1.engine.protocol import Request, Sampling, prompt_ids
from open_r1.engine.transformers_engine import TransformersEngine
from open_r1.errors import UserError


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n": 0}, "n is 0: expected at least one"),
        ({"temperature": -1.0}, "temperature is -1.0: expected 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"min_p": 1.5}, "min_p is 1.5"),
    ],
)
def test_a_sampling_that_no_engine_can_do_is_a_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        Sampling(**wrong)


def test_token_ids_of_any_kind_are_the_prompt_and_messages_are_rendered(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path))
    for prompt in ([5, 6], (5, 6), np.array([5, 6]), list(np.array([5, 6]))):
        found = prompt_ids(Request(0, prompt, Sampling()), tokenizer)
        assert found == [5, 6] and all(type(token) is int for token in found)
    messages = [{"role": "user", "content": "Hi"}]
    rendered = prompt_ids(Request(0, messages, Sampling()), tokenizer)
    assert tokenizer.decode(rendered) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(UserError, match="request 3: its prompt is empty"):
        prompt_ids(Request(3, [], Sampling()), tokenizer)


@pytest.mark.parametrize("engine", [TransformersEngine, partial(NativeEngine, max_model_len=64)])
def test_a_token_without_an_embedding_is_a_sentence(tmp_path, engine):
    """A tokenizer with tokens that the model lacks, one of which only pads."""
    folder = make_tokenizer(tmp_path, pad="<|pad|>")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.pad_token = "<new>"
    make_model(folder, vocab_size=len(tokenizer) - 1)
    opened = engine(AutoModelForCausalLM.from_pretrained(folder), tokenizer)
    found = opened.generate([Request(i, [5] * (i + 1), Sampling(max_tokens=3)) for i in range(2)])
    assert [len(completion.token_ids) for (completion,) in found] == [3, 3]
    for wrong in (len(tokenizer) - 1, -1):
        with pytest.raises(UserError, match=f"request 7: its prompt has token {wrong}, and the model has embeddings"):
            opened.generate([Request(7, [5, wrong], Sampling())])
