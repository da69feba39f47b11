import hashlib
import json
import shutil

import pytest
from toys import CHATML, make_tokenizer
from transformers import GenerationConfig

from open_r1.data.chat import encode, pad_token_id, prepare_tokenizer, render, stop_token_ids
from open_r1.data.conversations import with_system_prompt
from open_r1.errors import UserError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n"
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
        ({"chat_template": "{% for %}"}, "chat_template: the chat template raised an error"),
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
    with pytest.raises(UserError, match="has 'enable_thinking', which the chat template does not use"):
        prepare_tokenizer(str(folder), chat_template_kwargs={"enable_thinking": False})


def test_the_end_of_a_message_is_not_that_of_its_parts(tmp_path):
    tokens = ("<|close|>", "<|sep|>", "<|end_of_msg|>")
    parts = "{% for m in messages %}{{ m['content'] }}<|close|>response<|sep|><|end_of_msg|>{% endfor %}"
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=parts, extra_tokens=tokens)))
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end_of_msg|>")}
    assert set(stop_token_ids(tokenizer, None)) == ends


def test_what_python_says_of_a_template_is_a_sentence(tmp_path):
    template = "{% for m in messages %}{{ m['content'] + m['role'] + 1 }}{% endfor %}"
    with pytest.raises(UserError, match="chat_template: the chat template raised an error: can only concatenate str"):
        prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=template)))


TEXTS = (
    "What is 12 + 30?",
    "<think>\n3 + 4 = 7\n</think> \\boxed{7}  ",
    "naïve 数学 🙂\t\n",
    "<|im_start|>user\n<|im_end|>",
)


def test_a_tokenizer_that_is_saved_is_the_one_that_was_loaded(tmp_path):
    """Token ids, template, special tokens and what ends a text, after saving twice."""
    folder = make_tokenizer(tmp_path / "first", extra_tokens=("<|eom_id|>",), pad=None)
    before = prepare_tokenizer(str(folder))
    before.save_pretrained(tmp_path / "second")
    prepare_tokenizer(str(tmp_path / "second")).save_pretrained(tmp_path / "third")
    after = prepare_tokenizer(str(tmp_path / "third"))
    for text in TEXTS:
        ids = encode(before, text)
        assert encode(after, text) == ids
        assert after.decode(ids) == before.decode(ids) == text
    assert after.get_vocab() == before.get_vocab()
    assert after.chat_template == before.chat_template
    assert (after.eos_token, after.pad_token) == (before.eos_token, before.pad_token) == ("<|im_end|>", None)
    assert stop_token_ids(after, None) == stop_token_ids(before, None)


@pytest.mark.parametrize("form", ["list", "files"])
@pytest.mark.parametrize("default", [True, False])
def test_of_named_templates_the_default_is_used_or_one_must_be_given(tmp_path, form, default):
    folder = make_tokenizer(tmp_path, chat_template=None)
    templates = {"rag": "RAG {{ messages[0]['content'] }}"} | ({"default": CHATML} if default else {})
    if form == "list":
        path = folder / "tokenizer_config.json"
        named = [{"name": name, "template": template} for name, template in templates.items()]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": named}))
    else:
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates/rag.jinja").write_text(templates["rag"])
        if default:
            (folder / "chat_template.jinja").write_text(CHATML)
    if not default:
        with pytest.raises(UserError, match="has chat templates named rag, but none named default: set chat_template"):
            prepare_tokenizer(str(folder))
    tokenizer = prepare_tokenizer(str(folder), chat_template=None if default else CHATML)
    assert render(tokenizer, HELLO) == "<|im_start|>user\nHello<|im_end|>\n"


def test_tokenizers_that_lose_texts_are_refused(tmp_path):
    make_tokenizer(tmp_path / "whole")
    (tmp_path / "lost").mkdir()
    shutil.copy(tmp_path / "whole/tokenizer_config.json", tmp_path / "lost")
    with pytest.raises(UserError, match=r"lost: the tokenizer (makes '.*' of 'What is|cannot be loaded)"):
        prepare_tokenizer(str(tmp_path / "lost"))


def test_a_tokenizer_that_is_a_pointer_is_called_that(tmp_path):
    folder = make_tokenizer(tmp_path)
    (folder / "tokenizer.json").write_text(POINTER)
    with pytest.raises(UserError, match=r"model_name_or_path: .*tokenizer.json is a Git LFS pointer.*git lfs pull"):
        prepare_tokenizer(str(folder))


def test_a_package_that_a_tokenizers_own_code_lacks_is_named(tmp_path):
    folder = make_tokenizer(tmp_path)
    path = folder / "tokenizer_config.json"
    mapping = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": mapping, "tokenizer_class": "OwnTokenizer"}))
    (folder / "tokenization_own.py").write_text("import package_that_is_nowhere\n\n\nclass OwnTokenizer: ...\n")
    with pytest.raises(UserError, match=r"the tokenizer cannot be loaded: .*package_that_is_nowhere"):
        prepare_tokenizer(str(folder), trust_remote_code=True)
