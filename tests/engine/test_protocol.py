"""What every engine takes: samplings and prompts."""

import numpy as np
import pytest
from toys import make_tokenizer
from transformers import AutoTokenizer

from open_r1.engine.protocol import Request, Sampling, prompt_ids
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
