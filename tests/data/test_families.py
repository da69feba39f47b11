"""Learned text under the chat templates of each family: every answer once, no question, the stop token."""

import logging
import random

import pytest
from datasets import Dataset
from families import FAMILIES
from toys import make_tokenizer

from open_r1.configs import SFTConfig
from open_r1.data.chat import prepare_tokenizer
from open_r1.data.sft import tokenize_sft
from open_r1.errors import UserError

USER = {"role": "user", "content": "ask"}
THOUGHT = {"role": "assistant", "content": "say", "reasoning_content": "why"}
CALL = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
TOOLS = '[{"type": "function", "function": {"name": "weather"}}]'


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    known = FAMILIES[request.param]
    folder = make_tokenizer(
        tmp_path_factory.mktemp("family"), chat_template=known.template, eos=known.eos, extra_tokens=known.tokens
    )
    tokenizer = prepare_tokenizer(str(folder))
    return known, tokenizer


def learned(row, family, **options):
    """The runs of learned text, and all of the text."""
    known, tokenizer = family
    args = SFTConfig(output_dir="unused", **{"assistant_only_loss": True, "max_length": 4096, **options})
    stops = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(known.stops))] if known.stops else None
    tokenized = tokenize_sft(Dataset.from_list([row]), tokenizer, args, None, stops=stops)[0]
    runs, last = [], 0
    for token, learn in zip(tokenized["input_ids"], tokenized["loss_mask"], strict=True):
        if learn and not last:
            runs.append([])
        if learn:
            runs[-1].append(token)
        last = learn
    return tuple(tokenizer.decode(run) for run in runs), tokenizer.decode(tokenized["input_ids"])


def expect(row, family, expected):
    """Asserts that `expected` is learned of a row, or that it is refused; all of its text, or None."""
    if isinstance(expected, str) and expected.startswith("error: "):
        with pytest.raises(UserError, match=expected.removeprefix("error: ")):
            learned(row, family)
        return None
    runs, whole = learned(row, family)
    assert runs == ((expected,) if isinstance(expected, str) else expected), whole
    return whole


def conversation(rng, turns, reasoning):
    """`turns` questions and answers in words that stand nowhere else, some surrounded by white space."""
    messages = []
    for i in range(turns):
        space = rng.choice(["", "\n", " "])
        messages.append({"role": "user", "content": f"ask{i} {rng.random()}{space}"})
        answer = {"role": "assistant", "content": f"say{i} {rng.random()}"}
        if reasoning and i == turns - 1:
            field = rng.choice(["reasoning_content", "thinking", "reasoning", None])
            if field is None:
                answer["content"] = f"<think>\nwhy{i}\n</think>\n\n{answer['content']}"
            else:
                answer[field] = f"why{i}"
        messages.append(answer)
    return messages


@pytest.mark.parametrize("reasoning", [False, True])
def test_every_answer_is_learned_once_and_no_question(family, reasoning):
    for seed in range(6):
        rng = random.Random(seed)
        turns = rng.randint(1, 4)
        row = {"messages": conversation(rng, turns, reasoning)}
        if reasoning and family[0].thought.startswith("error: "):
            expect(row, family, family[0].thought)
            continue
        runs, whole = learned(row, family)
        assert len(runs) == turns, whole
        for i, run in enumerate(runs):
            answer = row["messages"][2 * i + 1]["content"].split("</think>")[-1].strip()
            assert run.count(answer) == 1 and f"ask{i}" not in "".join(runs), (answer, runs, whole)
        assert "".join(runs).count(f"why{turns - 1}") == reasoning


def test_reasoning_and_stop_token_of_an_answer_are_learned_and_no_prefill(family):
    expect({"messages": [USER, THOUGHT]}, family, family[0].thought)


def test_each_turn_is_learned_with_its_stop_token(family):
    messages = [
        {"role": role, "content": f"{word}{i}"}
        for i in (0, 1)
        for role, word in (("user", "ask"), ("assistant", "say"))
    ]
    expect({"messages": messages}, family, family[0].turns)


def test_reasoning_of_earlier_turns_is_there_or_counted(family, caplog):
    row = {"messages": [USER, THOUGHT, USER, {"role": "assistant", "content": "end"}]}
    with caplog.at_level(logging.WARNING):
        runs, whole = learned(row, family)
    kept = family[0].earlier == "kept"
    assert ("why" in whole) == ("why" in runs[0]) == kept
    warning = "1 of 1 rows have reasoning in earlier turns that the chat template drops"
    assert (warning in caplog.text) != kept


def test_the_system_message_is_in_the_text_and_not_learned_or_refused(family):
    row = {"messages": [USER, {"role": "assistant", "content": "say"}], "system": "Be brief."}
    if family[0].system.startswith("error: "):
        expect(row, family, family[0].system)
    else:
        runs, whole = learned(row, family)
        assert whole.count("Be brief.") == 1 and "Be brief." not in "".join(runs)


def test_calls_of_tools_are_learned_and_tools_are_in_the_text_or_it_is_refused(family):
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "end"},
    ]
    whole = expect({"messages": messages, "tools": TOOLS}, family, family[0].call)
    if whole is not None:
        assert '"name": "weather"' in whole and "sunny" in whole


def test_a_turn_without_a_stop_token_is_said(tmp_path, caplog):
    known = FAMILIES["glm-4.5"]
    tokenizer = prepare_tokenizer(
        str(make_tokenizer(tmp_path, chat_template=known.template, extra_tokens=known.tokens))
    )
    answers = [{"role": "assistant", "content": f"say{i}"} for i in (0, 1)]
    args = SFTConfig(output_dir="unused", assistant_only_loss=True)
    with caplog.at_level(logging.WARNING):
        row = tokenize_sft(
            Dataset.from_list([{"messages": [USER, answers[0], USER, answers[1]]}]), tokenizer, args, None
        )[0]
    text = tokenizer.decode([t for t, learn in zip(row["input_ids"], row["loss_mask"], strict=True) if learn])
    assert text == "\n<think></think>\nsay0\n<think></think>\nsay1<|im_end|>"
    assert "1 of 1 rows end without a stop token in the chat template, so <|im_end|> is added" in caplog.text
    assert "1 of 1 rows have earlier turns without a stop token in the chat template" in caplog.text
