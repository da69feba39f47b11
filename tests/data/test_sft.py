import logging

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from toys import DEEPSEEK_LIKE, make_tokenizer

from open_r1.configs import SFTConfig
from open_r1.data.chat import prepare_tokenizer
from open_r1.data.sft import tokenize_sft
from open_r1.errors import UserError

USER = {"role": "user", "content": "3 + 4"}
TRACE = {"role": "assistant", "content": "<think>\n3 + 4 = 7\n</think>\n7"}
AGAIN = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return prepare_tokenizer(str(make_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def tokenize(rows, tokenizer, system_prompt=None, **options):
    args = SFTConfig(output_dir="unused", **options)
    return tokenize_sft(Dataset.from_list(rows), tokenizer, args, system_prompt)


def split(row, tokenizer):
    """All text of a row, and what is learned of it, runs joined by |; the first token, which nothing predicts and
    so is never learned, is counted to the second."""
    assert row["loss_mask"][0] == 0
    runs, last = [], 0
    for token, learn in zip(row["input_ids"], [row["loss_mask"][1], *row["loss_mask"][1:]], strict=True):
        if learn and not last:
            runs.append([])
        if learn:
            runs[-1].append(token)
        last = learn
    return tokenizer.decode(row["input_ids"]), "|".join(tokenizer.decode(run) for run in runs)


def test_conversations_are_learned_whole_or_only_the_assistant(tokenizer):
    rows = [{"messages": [USER, TRACE, *AGAIN]}]
    whole = tokenizer.apply_chat_template(rows[0]["messages"], tokenize=False)
    assert split(tokenize(rows, tokenizer)[0], tokenizer) == (whole, whole)
    text, learned = split(tokenize(rows, tokenizer, assistant_only_loss=True)[0], tokenizer)
    assert text == whole
    assert learned == TRACE["content"] + "<|im_end|>\n|Yes<|im_end|>\n"


def test_sharegpt_conversations_are_understood(tokenizer):
    rows = [{"conversations": [{"from": "human", "value": "3 + 4"}, {"from": "gpt", "value": TRACE["content"]}]}]
    same = tokenize([{"messages": [USER, TRACE]}], tokenizer)[0]
    assert tokenize(rows, tokenizer)[0] == same


def test_prompt_and_completion_learn_the_completion(tokenizer):
    chat = [{"prompt": [USER], "completion": [TRACE]}]
    text, learned = split(tokenize(chat, tokenizer, "Think.")[0], tokenizer)
    assert text.startswith("<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\n3 + 4")
    assert learned == TRACE["content"] + "<|im_end|>\n"
    text, learned = split(tokenize(chat, tokenizer, completion_only_loss=False)[0], tokenizer)
    assert text == learned
    plain = [{"prompt": "3 + 4 =", "completion": " 7"}]
    assert split(tokenize(plain, tokenizer)[0], tokenizer) == ("3 + 4 = 7<|im_end|>", " 7<|im_end|>")
    assert split(tokenize(plain, tokenizer, completion_only_loss=False)[0], tokenizer)[1] == "3 + 4 = 7<|im_end|>"


def test_an_end_token_that_the_tokenizer_appends_is_learned(tmp_path):
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path / "tokenizer")))
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>")}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|im_end|>", special_tokens=list(ids.items())
    )
    row = tokenize([{"prompt": "3 + 4 =", "completion": " 7"}], tokenizer)[0]
    assert row["input_ids"][0] == ids["<|endoftext|>"] and row["input_ids"].count(ids["<|im_end|>"]) == 1
    assert split(row, tokenizer) == ("<|endoftext|>3 + 4 = 7<|im_end|>", " 7<|im_end|>")
    text = tokenize([{"text": "3 + 4"}], tokenizer)[0]
    assert split(text, tokenizer) == ("<|endoftext|>3 + 4<|im_end|>",) * 2


def test_problem_and_solution_columns_are_a_conversation(tokenizer):
    rows = [{"problem": "3 + 4", "solution": TRACE["content"], "answer": "7"}]
    text, learned = split(tokenize(rows, tokenizer)[0], tokenizer)
    assert text == tokenizer.apply_chat_template([USER, TRACE], tokenize=False)
    assert learned == TRACE["content"] + "<|im_end|>\n"


def test_plain_text_ends_with_eos_once(tokenizer):
    rows = [{"text": "3 + 4 = 7"}, {"text": "3 + 4 = 7<|im_end|>"}]
    for row in tokenize(rows, tokenizer):
        assert split(row, tokenizer) == ("3 + 4 = 7<|im_end|>",) * 2
    named = tokenize([{"body": "3", "problem": "no", "solution": "no"}], tokenizer, dataset_text_field="body")
    assert split(named[0], tokenizer)[0] == "3<|im_end|>"


def test_the_boundary_holds_when_tokens_would_merge_across_it(tokenizer):
    for prompt, completion in (("3 + 4 = 4", "9 and 42"), ("the ans", "wer is 7"), ("é", "è 7")):
        row = tokenize([{"prompt": prompt, "completion": completion}], tokenizer)[0]
        text, learned = split(row, tokenizer)
        assert text == prompt + completion + "<|im_end|>"
        assert learned.endswith(completion + "<|im_end|>"), (prompt, completion, learned)


def test_long_rows_are_cut_and_rows_with_nothing_to_learn_dropped(tokenizer, caplog):
    rows = [{"prompt": "a " * 50, "completion": "b"}, {"prompt": "a", "completion": " b" * 50}]
    rows += [{"prompt": "a", "completion": "b"}]
    with caplog.at_level(logging.WARNING):
        tokenized = tokenize(rows, tokenizer, max_length=20)
    assert len(tokenized[0]["input_ids"]) == 20
    assert len(tokenized) == 2
    assert "of 3 rows, 2 are longer than max_length 20 and were truncated" in caplog.text
    assert "1 have nothing left to learn" in caplog.text
    with pytest.raises(UserError, match="no row has a token to learn within max_length 20"):
        tokenize(rows[:1], tokenizer, max_length=20)


def test_a_template_that_swallows_reasoning_is_refused(tmp_path):
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=DEEPSEEK_LIKE)))
    with pytest.raises(UserError, match="row 1: the chat template drops the reasoning before </think>"):
        tokenize([{"messages": [USER, TRACE]}], tokenizer)


def test_swallowed_reasoning_is_found_though_the_question_says_the_same(tmp_path):
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=DEEPSEEK_LIKE)))
    same = {"role": "assistant", "content": "<think>\n3 + 4\n</think>\n7"}
    with pytest.raises(UserError, match="drops the reasoning"):
        tokenize([{"messages": [USER, same]}], tokenizer)
    assert len(tokenize([{"messages": [USER, same]}], prepare_tokenizer(str(make_tokenizer(tmp_path / "chatml"))))) == 1


def test_turns_that_cannot_be_told_are_named(tmp_path):
    upper = "{% for m in messages %}{{ m['content'] | upper if loop.last else m['content'] }}\n{% endfor %}"
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=upper)))
    rows = [
        {"messages": [USER, {"role": "assistant", "content": "7"}, USER, {"role": "assistant", "content": "SEVEN"}]}
    ]
    assert len(tokenize(rows, tokenizer)) == 1
    with pytest.raises(UserError, match=r"row 1: cannot locate message 3 in the rendered text"):
        tokenize(rows, tokenizer, assistant_only_loss=True)


def test_what_rows_carry_is_in_the_text_or_named(tokenizer, caplog):
    said = {"role": "assistant", "content": "7", "weight": 1}
    row = {"messages": [USER, {**said, "reasoning_content": "three and four"}], "system": "Be brief.", "id": "a1"}
    text, _ = split(tokenize([row], tokenizer)[0], tokenizer)
    assert "system\nBe brief." in text and "<think>\nthree and four\n</think>\n\n7" in text
    assert "these columns are not used: id" in caplog.text
    assert "1 of 1 rows have messages with 'weight', which is not in the text" in caplog.text
    alpaca = [{"instruction": "Add", "input": "3 4", "output": "7"}]
    assert "user\nAdd\n\n3 4<|im_end|>" in split(tokenize(alpaca, tokenizer)[0], tokenizer)[0]


@pytest.mark.parametrize(
    "messages",
    [
        [{"from": "human", "value": "3 + 4"}, {"from": "chatgpt", "value": "7"}],
        '[{"role": "user", "content": "3 + 4"}, {"role": "assistant", "content": "7"}]',
        [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in (("user", "3 + 4"), ("assistant", "7"))],
    ],
)
def test_conversations_in_other_forms_are_the_same(tokenizer, messages):
    same = tokenize([{"messages": [USER, {"role": "assistant", "content": "7"}]}], tokenizer)[0]
    assert tokenize([{"messages": messages}], tokenizer)[0] == same


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"body": "x"}, {}, "expected a column messages.* there are: body"),
        ({"text": "x"}, {"assistant_only_loss": True}, "plain text: it needs messages"),
        ({"text": "x"}, {"system_prompt": "Think."}, "which has no system message"),
        ({"prompt": "x", "completion": "y"}, {"system_prompt": "Think."}, "prompt is plain text"),
        ({"prompt": "x", "completion": ""}, {}, "row 1, column completion: expected text"),
        ({"problem": "x", "solution": None}, {}, "row 1, column solution: expected text, found 'None'"),
        ({"messages": [USER]}, {"completion_only_loss": True}, "write assistant_only_loss: true"),
        ({"messages": []}, {}, "row 1, column messages: expected a list of messages"),
        ({"messages": [TRACE]}, {"assistant_only_loss": True}, "no row has a token to learn"),
        (
            {"messages": [{**USER, "role": "asistant"}]},
            {},
            "message 1: unknown role 'asistant'. Did you mean 'assistant'",
        ),
        ({"messages": [{"from": "function_call", "value": "{}"}]}, {}, "expected a tool call with name and arguments"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            {},
            "is 'image', but only text is supported",
        ),
        ({"messages": [USER, TRACE | {"tool_calls": [{"name": "f"}]}]}, {}, "drops the tool calls in message 2"),
        (
            {"messages": [{"role": "system", "content": "a"}, USER, TRACE], "system": "b"},
            {},
            "different system prompts",
        ),
    ],
)
def test_mistakes_are_named(tokenizer, row, options, message):
    with pytest.raises(UserError, match=message):
        tokenize([row], tokenizer, **options)


def test_tokenizing_is_cached_and_the_same_with_processes(tokenizer, tmp_path):
    path = tmp_path / "rows"
    Dataset.from_list([{"prompt": f"{i}", "completion": " 7"} for i in range(8)]).save_to_disk(path)
    once = tokenize_sft(Dataset.load_from_disk(path), tokenizer, SFTConfig(output_dir="unused"), None)
    tokenizer(["a", "bbb"], padding=True)  # changes the tokenizer's passing state
    again = tokenize_sft(Dataset.load_from_disk(path), tokenizer, SFTConfig(output_dir="unused"), None)
    assert once.cache_files == again.cache_files != []
    split_up = tokenize_sft(
        Dataset.load_from_disk(path), tokenizer, SFTConfig(output_dir="unused", dataset_num_proc=2), None
    )
    assert split_up["input_ids"][:] == once["input_ids"][:]
