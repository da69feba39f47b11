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


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    template, tokens, stop, keeps = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp("family")
    tokenizer = prepare_tokenizer(str(make_tokenizer(folder, chat_template=template, extra_tokens=tokens)))
    return request.param, tokenizer, stop, keeps


def learned(rows, tokenizer, **options):
    args = SFTConfig(output_dir="unused", **{"assistant_only_loss": True, "max_length": 4096, **options})
    row = tokenize_sft(Dataset.from_list(rows), tokenizer, args, None)[0]
    ids = [token for token, learn in zip(row["input_ids"], row["loss_mask"], strict=True) if learn]
    return tokenizer.decode(ids), tokenizer.decode(row["input_ids"])


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
    _, tokenizer, stop, keeps = family
    if reasoning and not keeps:
        pytest.skip("has a test of its own")
    for seed in range(6):
        rng = random.Random(seed)
        turns = rng.randint(1, 4)
        messages = conversation(rng, turns, reasoning)
        text, whole = learned([{"messages": messages}], tokenizer)
        for i in range(turns):
            answer = messages[2 * i + 1]["content"].split("</think>")[-1].strip()
            assert text.count(answer) == 1, (answer, text, whole)
            assert f"ask{i}" not in text
        assert text.count(f"why{turns - 1}") == reasoning
        ends = text.count(stop) + text.count(tokenizer.eos_token) * (stop != tokenizer.eos_token)
        assert ends + text.count("<|return|>") >= turns, text


def test_a_prefilled_think_is_not_learned(family):
    name, tokenizer, _, _ = family
    if name not in ("qwen3.5", "qwen3.6"):
        pytest.skip("begins no reasoning in its prompt, or drops it")
    row = {"role": "assistant", "content": "say", "reasoning_content": "why"}
    text, whole = learned([{"messages": [{"role": "user", "content": "ask"}, row]}], tokenizer)
    assert "<think>" in whole and text.startswith("why\n</think>\n\nsay<|im_end|>")


def test_what_a_family_has_no_place_for_is_named(family, caplog):
    name, tokenizer, _, keeps = family
    user = {"role": "user", "content": "ask"}
    thought = {"role": "assistant", "content": "say", "reasoning_content": "why"}
    if not keeps:
        with pytest.raises(UserError, match="leaves out the reasoning before </think>"):
            learned([{"messages": [user, thought]}], tokenizer)
    if name == "gemma":
        with pytest.raises(UserError, match="System role not supported"):
            learned([{"messages": [{"role": "system", "content": "Be."}, user, thought]}], tokenizer)
    if name == "glm-4.5":
        with caplog.at_level(logging.WARNING):
            assert learned([{"messages": [user, thought]}], tokenizer)[0].endswith("say<|im_end|>")
        assert "1 of 1 rows end without a stop token" in caplog.text
    if name == "gpt-oss":
        assert learned([{"messages": [user, thought]}], tokenizer)[0] == (
            "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>say<|return|>"
        )
    caplog.clear()
    if name in ("qwen3", "qwen3.5", "glm-4.5", "gpt-oss", "nemotron-3"):
        with caplog.at_level(logging.WARNING):
            learned([{"messages": [user, thought, user, {"role": "assistant", "content": "end"}]}], tokenizer)
        assert "1 of 1 rows have reasoning in earlier turns that the chat template leaves out" in caplog.text


def test_tool_calls_are_learned_and_tools_are_in_the_text(family):
    name, tokenizer, _, _ = family
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
    messages = [
        {"role": "user", "content": "ask"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny"},
    ]
    tools = '[{"type": "function", "function": {"name": "weather"}}]'
    if not name.startswith(("qwen", "nemotron")):
        with pytest.raises(UserError):
            learned([{"messages": messages, "tools": tools}], tokenizer)
        return
    text, whole = learned([{"messages": messages, "tools": tools}], tokenizer)
    assert '<call>weather {"city": "Bonn"}</call>' in text and "It is sunny<|im_end|>" in text
    assert '"name": "weather"' in whole.replace(text, "") and "tool\nsunny" not in text
