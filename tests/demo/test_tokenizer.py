import pytest
from transformers import AutoTokenizer

from open_r1.demo import sums
from open_r1.demo.sums import SUMS
from open_r1.demo.tokenizer import TAGS, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(SUMS.words).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_any_text_survives(tokenizer):
    problem = SUMS.held_out(1)[0]
    for text in (sums.careful(problem), problem.question, "  two  spaces\n\ttab é 数学 🙂 don't"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_and_tags_are_single_tokens(tokenizer):
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    assert tokenizer.tokenize("".join(TAGS)) == list(TAGS)


def test_tags_are_kept_when_special_tokens_are_skipped(tokenizer):
    text = sums.careful(SUMS.held_out(1)[0])
    ids = tokenizer.encode(text + "<|im_end|>")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_chat_template_is_chatml_and_pad_is_not_the_end_of_a_turn(tokenizer):
    messages = [{"role": "user", "content": "What is 1+2?"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nWhat is 1+2?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_building_twice_gives_the_same_tokenizer():
    assert build_tokenizer(SUMS.words).get_vocab() == build_tokenizer(SUMS.words).get_vocab()
