import hashlib

import pytest
from toys import CHATML, make_tokenizer
from transformers import GenerationConfig

from open_r1.data.chat import pad_token_id, prepare_tokenizer, stop_token_ids
from open_r1.data.conversations import with_system_prompt
from open_r1.errors import UserError

HELLO = [{"role": "user", "content": "Hello"}]


def test_llama_without_a_pad_token_keeps_its_files_and_its_eos(tmp_path):
    folder = make_tokenizer(tmp_path, pad=None, eos="<|eot_id|>", extra_tokens=("<|finetune_right_pad_id|>",))
    before = {f.name: hashlib.sha256(f.read_bytes()).digest() for f in folder.iterdir()}
    tokenizer = prepare_tokenizer(str(folder))
    assert pad_token_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|finetune_right_pad_id|>")
    assert tokenizer.pad_token is None, "a loss that masks tokenizer.pad_token_id must not hide anything"
    assert before == {f.name: hashlib.sha256(f.read_bytes()).digest() for f in folder.iterdir()}


def test_padding_falls_back_to_eos(tmp_path):
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path, pad=None)))
    assert pad_token_id(tokenizer) == tokenizer.eos_token_id
    padded = prepare_tokenizer(str(make_tokenizer(tmp_path / "padded")))
    assert pad_token_id(padded) == padded.convert_tokens_to_ids("<|endoftext|>") != padded.eos_token_id


def test_no_chat_template_means_chatml_said_aloud(tmp_path, caplog):
    folder = make_tokenizer(tmp_path, chat_template=None, eos="<|endoftext|>")
    tokenizer = prepare_tokenizer(str(folder))
    assert "no chat template" in caplog.text
    text = tokenizer.apply_chat_template(HELLO, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    im_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stop_token_ids(tokenizer, None) == (tokenizer.eos_token_id, im_end)


def test_chatml_ends_turns_with_eos_where_im_end_is_no_token(tmp_path):
    from transformers import AutoTokenizer

    folder = make_tokenizer(tmp_path, chat_template=None, eos="</s>")
    vocabulary = AutoTokenizer.from_pretrained(folder)
    files = [f for f in folder.iterdir() if "<|im_end|>" in f.read_text()]
    for file in files:
        file.write_text(file.read_text().replace("<|im_end|>", "<|other|>"))
    assert "<|im_end|>" in vocabulary.get_vocab()
    tokenizer = prepare_tokenizer(str(folder))
    assert tokenizer.apply_chat_template(HELLO, tokenize=False).endswith("Hello</s>\n")
    assert stop_token_ids(tokenizer, None) == (tokenizer.eos_token_id,)


def test_every_end_token_stops(tmp_path):
    folder = make_tokenizer(tmp_path, chat_template=CHATML, eos="<|endoftext|>", extra_tokens=("<|eom_id|>",))
    tokenizer = prepare_tokenizer(str(folder))
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<|eom_id|>", "<|endoftext|>", "<|im_end|>")}
    several = GenerationConfig(eos_token_id=[ids["<|eom_id|>"], ids["<|endoftext|>"]])
    for config in (several, GenerationConfig(eos_token_id=ids["<|eom_id|>"])):
        assert stop_token_ids(tokenizer, config) == tuple(sorted(ids.values()))


def test_eos_token_and_chat_template_can_be_given(tmp_path):
    folder = make_tokenizer(tmp_path / "model", eos="<|endoftext|>")
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    for given in (str(template), template.read_text()):
        tokenizer = prepare_tokenizer(str(folder), chat_template=given, eos_token="<|im_end|>")
        assert tokenizer.eos_token == "<|im_end|>"
        assert tokenizer.apply_chat_template(HELLO, tokenize=False) == "user: Hello\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eos_token": "<|end|>"}, "eos_token is '<|end|>'"),
        ({"chat_template": "none.jinja"}, "chat_template is 'none.jinja'"),
        ({"chat_template": "{% for %}"}, "chat_template: the chat template refuses this"),
        ({"chat_template": "{{ raise_exception('no user') }}"}, "no user"),
    ],
)
def test_mistakes_are_named(tmp_path, options, message):
    with pytest.raises(UserError, match=message.replace("|", r"\|")):
        prepare_tokenizer(str(make_tokenizer(tmp_path)), **options)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match="has no tokenizer"):
        prepare_tokenizer(str(tmp_path))
    with pytest.raises(UserError, match="there is no such folder"):
        prepare_tokenizer(str(tmp_path / "none"))


def test_the_system_prompt_gives_way_to_a_system_message():
    assert with_system_prompt(HELLO, "Be brief.")[0] == {"role": "system", "content": "Be brief."}
    own = [{"role": "system", "content": "Be long."}, *HELLO]
    assert with_system_prompt(own, "Be brief.") == own
    assert with_system_prompt(HELLO, None) == HELLO


def test_variables_of_the_chat_template_are_its_defaults_also_when_saved(tmp_path):
    words = "{% for m in messages %}{{ m['content'] }} {{ n }}{% endfor %}"
    template = "{% if thinking is defined and thinking is false %}off {% endif %}" + words
    folder = make_tokenizer(tmp_path / "model", chat_template=template)
    tokenizer = prepare_tokenizer(str(folder), chat_template_kwargs={"thinking": False, "n": 'é "'})
    assert tokenizer.apply_chat_template(HELLO, tokenize=False) == 'off Hello é "'
    assert tokenizer.apply_chat_template(HELLO, tokenize=False, thinking=True) == 'Hello é "'
    tokenizer.save_pretrained(tmp_path / "saved")
    again = prepare_tokenizer(str(tmp_path / "saved"), chat_template_kwargs={"n": None})
    assert again.apply_chat_template(HELLO, tokenize=False) == "off Hello None"
    with pytest.raises(UserError, match="has 'enable_thinking', which the chat template does not read"):
        prepare_tokenizer(str(folder), chat_template_kwargs={"enable_thinking": False})


def test_the_end_of_a_message_is_not_that_of_its_parts(tmp_path):
    tokens = ("<|close|>", "<|sep|>", "<|end_of_msg|>")
    parts = "{% for m in messages %}{{ m['content'] }}<|close|>response<|sep|><|end_of_msg|>{% endfor %}"
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=parts, extra_tokens=tokens)))
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end_of_msg|>")}
    assert set(stop_token_ids(tokenizer, None)) == ends


def test_what_python_says_of_a_template_is_a_sentence(tmp_path):
    template = "{% for m in messages %}{{ m['content'] + m['role'] + 1 }}{% endfor %}"
    with pytest.raises(UserError, match="chat_template: the chat template refuses this: can only concatenate str"):
        prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=template)))
