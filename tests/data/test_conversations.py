"""Whatever command reads a row: what it carries is in the prompt, or named."""

import logging

import pytest
from datasets import Dataset
from families import FAMILIES
from toys import DEEPSEEK_LIKE, make_model, make_tokenizer

from open_r1.configs import SFTConfig
from open_r1.data.chat import prepare_tokenizer
from open_r1.data.conversations import ConversationRenderer, prompt_messages
from open_r1.data.prompts import prompt_rows
from open_r1.data.sft import tokenize_sft
from open_r1.engine.load import LoadedEngine
from open_r1.engine.openai_engine import OpenAIEngine
from open_r1.engine.openai_prompts import ServedPrompts
from open_r1.engine.opening import open_engine
from open_r1.engine.options import EngineOptions
from open_r1.engine.protocol import Request, Sampling
from open_r1.errors import UserError
from open_r1.evaluation.own_rows import own_problems
from open_r1.evaluation.plan import conversation_of
from open_r1.evaluation.protocol import protocol_for
from open_r1.evaluation.tasks import find_task
from open_r1.generation.problems import Problems
from open_r1.options.columns import ColumnOptions

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
ASKED = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
    {"role": "user", "content": "Sure?"},
]
ROW = {"prompt": ASKED, "tools": [TOOL], "system": "Be brief.", "answer": "yes"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    qwen3 = FAMILIES["qwen3"]
    folder = make_tokenizer(
        tmp_path_factory.mktemp("model"), chat_template=qwen3.template, extra_tokens=qwen3.tokens, vocab_size=330
    )
    return make_model(folder, vocab_size=340)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return prepare_tokenizer(str(folder))


def grpo(row, tokenizer, columns=None):
    return prompt_rows(Dataset.from_list([row]), tokenizer, columns)[0]["prompt_text"]


def generated(row, tokenizer, columns=None):
    (problem,) = Problems(Dataset.from_list([row]), columns).read([0])
    return ConversationRenderer(tokenizer).text(problem.conversation, "row 1")[0]


def evaluated(row, tokenizer, columns=None):
    task = find_task("rows.jsonl")
    (problem,) = own_problems(task, Dataset.from_list([row]), columns or ColumnOptions())
    return ConversationRenderer(tokenizer).text(conversation_of(problem, protocol_for(task)), "row 1")[0]


def fine_tuned(row, tokenizer, columns=None):
    """What stands in front of the answer."""
    named = columns or ColumnOptions(prompt_column="prompt", answer_column="answer")
    args = SFTConfig(output_dir="unused")
    made = tokenize_sft(Dataset.from_list([row]), tokenizer, args, None, named)[0]
    return tokenizer.decode(made["input_ids"][: made["loss_mask"].index(1)])


@pytest.mark.parametrize("read", [grpo, generated, evaluated, fine_tuned])
def test_system_tools_and_calls_are_in_the_prompt_of_every_command(read, tokenizer):
    text = read(ROW, tokenizer)
    assert text.startswith('<|im_start|>system\n{"type": "function", "function": {"name": "weather"')
    assert text.endswith("<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n")
    for part in ("system\nBe brief.<|im_end|>", '<call>weather {"city": "Bonn"}</call>', "tool\nsunny<|im_end|>"):
        assert text.count(part) == 1


@pytest.mark.parametrize("read", [grpo, generated, evaluated, fine_tuned])
def test_columns_of_other_names_are_the_same(read, tokenizer):
    row = {"x": {"asked": ASKED, "gold": "yes"}, "functions": [TOOL], "rules": "Be brief."}
    columns = ColumnOptions(
        prompt_column="x.asked", answer_column="x.gold", system_column="rules", tools_column="functions"
    )
    assert read(row, tokenizer, columns) == read(ROW, tokenizer)


@pytest.mark.parametrize("read", [grpo, generated, evaluated, fine_tuned])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": [{"role": "system", "content": "Be long."}, *ASKED]}, "column system and the first message"),
        ({"tools": ["{"]}, "column tools: this is not valid JSON"),
        ({"tools": [{"x": 1}]}, "column tools: expected tools as JSON schemas with a name"),
        ({"system": 5}, "column system: expected a system prompt, found '5'"),
        ({"prompt": [{"role": "usr", "content": "a"}]}, "unknown role 'usr'. Did you mean 'user'"),
    ],
)
def test_what_contradicts_itself_is_refused_by_every_command(read, tokenizer, change, message):
    with pytest.raises(UserError, match=f"row 1.*{message}"):
        read(ROW | change, tokenizer)


@pytest.mark.parametrize("read", [grpo, generated, evaluated, fine_tuned])
def test_the_input_of_alpaca_follows_its_instruction(read, tokenizer):
    row = {"instruction": "Add.", "input": "1 2", "answer": "3"}
    columns = ColumnOptions(prompt_column="instruction", answer_column="answer")
    assert "user\nAdd.\n\n1 2" in read(row, tokenizer, columns)


def test_what_a_template_leaves_out_of_prompts_is_counted_or_refused(folder, tokenizer, tmp_path, caplog):
    thought = {"role": "assistant", "content": "2", "reasoning": "one and one"}
    row = {"prompt": [{"role": "user", "content": "1 + 1"}, thought, {"role": "user", "content": "Sure?"}]}
    with caplog.at_level(logging.WARNING):
        rows = prompt_rows(Dataset.from_list([row, row]), tokenizer)
    assert "2 of 2 rows have reasoning in earlier turns that the chat template drops" in caplog.text
    assert rows.column_names == ["prompt", "prompt_text", "prompt_ids"]
    assert rows[0]["prompt"][1]["reasoning_content"] == "one and one"  # rewards see what the row holds
    plain = prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=DEEPSEEK_LIKE)))
    with caplog.at_level(logging.WARNING):
        prompt_rows(Dataset.from_list([{"prompt": "a", "tools": [TOOL]}]), plain)
    assert "1 of 1 rows have tools that the chat template drops" in caplog.text
    caplog.clear()
    model = LoadedEngine(open_engine(EngineOptions(str(folder), engine="transformers")))
    with caplog.at_level(logging.WARNING), model:
        model.generate([row["prompt"]], max_tokens=1, tools=[TOOL])
        with pytest.raises(UserError, match=r"prompts\[0\].*expected tools as JSON schemas"):
            model.generate(["1 + 1"], max_tokens=1, tools=[{"x": 1}])
    assert "1 of 1 conversations have reasoning in earlier turns" in caplog.text
    mute = make_tokenizer(tmp_path / "mute", chat_template="{% for m in messages %}{{ m['role'] }}{% endfor %}")
    with pytest.raises(UserError, match="row 1, column prompt: the chat template drops the content of the user"):
        prompt_rows(Dataset.from_list([{"prompt": "1 + 1"}]), prepare_tokenizer(str(mute)))


def test_servers_get_tools_and_variables_with_the_messages():
    render = ServedPrompts({"enable_thinking": False})
    (problem,) = Problems(Dataset.from_list([ROW])).read([0])
    prompt = render(problem.conversation)
    path, body = OpenAIEngine("http://unused", "m")._body(Request(0, prompt, Sampling()), 0)
    assert path == "/chat/completions" and body["tools"] == [TOOL]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Bonn"}'
    assert ServedPrompts()([{"role": "user", "content": "a"}]) == [{"role": "user", "content": "a"}]


def test_the_variables_of_a_row_reach_its_prompt(tmp_path):
    template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ '<no>' if enable_thinking is false else '<yes>' }}"
    )
    tokenizer = prepare_tokenizer(str(make_tokenizer(tmp_path, chat_template=template)))
    rows = [{"prompt": "a", "chat_template_kwargs": {"enable_thinking": flag}} for flag in (False, True)]
    assert prompt_rows(Dataset.from_list(rows), tokenizer)["prompt_text"][:] == ["a<no>", "a<yes>"]


def test_a_text_that_looks_like_a_list_is_a_text():
    for text in ("[1, 2] sorted?", '["a", "b"]', "[INST]", "[]"):
        assert prompt_messages(text, "row 1") == [{"role": "user", "content": text}]
    assert prompt_messages('[{"role": "user", "content": "a"}]', "row 1") == [{"role": "user", "content": "a"}]
    assert prompt_messages(5, "row 1")[0]["content"] == "5"
    with pytest.raises(UserError, match="row 1: expected a list of messages"):
        prompt_messages({"a": 1}, "row 1")
