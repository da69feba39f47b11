import pytest
from datasets import Dataset
from toys import DEEPSEEK_LIKE, make_tokenizer

from open_r1.data.chat import prepare_tokenizer
from open_r1.data.prompts import drop_long_prompts, prompt_rows
from open_r1.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return prepare_tokenizer(str(make_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def test_text_becomes_a_conversation_and_other_columns_stay(tokenizer):
    dataset = Dataset.from_list([{"problem": "3 + 4", "answer": "7", "level": 1}])
    row = prompt_rows(dataset, tokenizer, system_prompt="Think.")[0]
    assert row["prompt"] == [{"role": "system", "content": "Think."}, {"role": "user", "content": "3 + 4"}]
    assert (row["problem"], row["answer"], row["level"]) == ("3 + 4", "7", 1)
    assert tokenizer.decode(row["prompt_ids"]) == (
        "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\n3 + 4<|im_end|>\n<|im_start|>assistant\n"
    )


def test_messages_are_taken_as_they_are(tokenizer):
    messages = [{"role": "user", "content": "3 + 4"}]
    dataset = Dataset.from_list([{"prompt": messages, "solution": "7"}])
    assert prompt_rows(dataset, tokenizer)[0]["prompt"] == messages
    shared = Dataset.from_list([{"prompt": [{"from": "human", "value": "3 + 4"}]}])
    assert prompt_rows(shared, tokenizer)[0]["prompt"] == messages


def test_the_generation_prompt_may_open_the_reasoning(tmp_path):
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=DEEPSEEK_LIKE)))
    row = prompt_rows(Dataset.from_list([{"prompt": "3 + 4"}]), tokenizer)[0]
    assert tokenizer.decode(row["prompt_ids"]).endswith("assistant\n<think>\n")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": "  "}, "row 2, column prompt: the prompt is empty"),
        ({"prompt": None}, "row 2, column prompt: the prompt is empty"),
        ({"answer": "", "solution": None}, "row 2, column answer and solution: the right answer is empty"),
    ],
)
def test_empty_cells_are_named(tokenizer, bad, message):
    good = {"prompt": "1 + 1", "answer": "2", "solution": ""}
    with pytest.raises(UserError, match=message):
        prompt_rows(Dataset.from_list([good, good | bad]), tokenizer)


def test_conversations_that_cannot_be_continued_are_named(tokenizer):
    turns = [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]
    for messages, message in (
        (turns, "row 1, column prompt: the prompt ends with an assistant message"),
        ([{"role": "user", "content": None}], "expected messages with role and content"),
        ([{"role": "user", "content": " "}], "the prompt is empty"),
    ):
        with pytest.raises(UserError, match=message):
            prompt_rows(Dataset.from_list([{"prompt": messages}]), tokenizer)
    with pytest.raises(UserError, match=r"there is no column prompt, problem, .*; there are: task.*--prompt_column"):
        prompt_rows(Dataset.from_list([{"task": "1 + 1"}]), tokenizer)


def test_prompts_that_leave_no_room_for_a_completion_are_dropped_and_counted(caplog):
    rows = Dataset.from_list([{"prompt_ids": [5] * length} for length in (4, 6, 7, 10)])
    assert [len(ids) for ids in drop_long_prompts(rows, 10, 4)["prompt_ids"]] == [4, 6]
    assert "dropped 2 of 4 prompts, which are longer than 6 tokens" in caplog.text
    assert len(drop_long_prompts(rows, None, 4)) == 4
    with pytest.raises(UserError, match="max_completion_length"):
        drop_long_prompts(rows, 10, 7)
