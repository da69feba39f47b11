"""One question, streamed."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from open_r1.engine.opening import EngineOptions, open_engine
from open_r1.engine.protocol import Engine, Request, Sampling
from open_r1.errors import UserError
from open_r1.evaluation import ask
from open_r1.evaluation.ask import open_one, show, split_reasoning, stream_answer

TEXT = "Well. <think>\n1 < 2, so <b> it is\n</think>\n\n42"


def joined(parts):
    found = {}
    for kind, text in parts:
        if kind == "tag":
            continue
        found[kind] = found.get(kind, "") + text
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_reasoning_is_told_apart_wherever_the_pieces_end(size):
    pieces = [("content", TEXT[i : i + size]) for i in range(0, len(TEXT), size)]
    assert joined(split_reasoning(pieces)) == {"content": "Well. \n\n42", "reasoning": "\n1 < 2, so <b> it is\n"}


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_answer_tags_are_folded_outside_reasoning_and_nothing_is_lost(size):
    text = "<think>Put it in <answer>.</think>\n<answer>42</answer>"
    pieces = list(split_reasoning([("content", text[i : i + size]) for i in range(0, len(text), size)]))
    assert joined(pieces) == {"reasoning": "Put it in <answer>.", "content": "\n42"}
    assert "".join(piece for _, piece in pieces) == text


def test_reasoning_that_the_prompt_opened():
    assert joined(split_reasoning([("content", "hm</thi"), ("content", "nk>4")], opened=True)) == {
        "reasoning": "hm",
        "content": "4",
    }


def test_what_the_server_tells_apart_stays_apart():
    assert joined(split_reasoning([("reasoning", "hm"), ("content", "4")])) == {"reasoning": "hm", "content": "4"}


def test_nothing_is_held_back_at_the_end():
    assert joined(split_reasoning([("content", "1 <thin")])) == {"content": "1 <thin"}


def test_show_heads_the_two_parts():
    file = io.StringIO()
    parts = [
        ("reasoning", "\n"),
        ("reasoning", "hm"),
        ("reasoning", " [bold]\n"),
        ("tag", "</think>"),
        ("content", "\n"),
    ]
    show(
        [*parts, ("content", "\n"), ("content", "4"), ("content", "2 \n"), ("tag", "</answer>")],
        Console(file=file, width=60),
    )
    assert file.getvalue() == "Reasoning\nhm [bold]\n\nAnswer\n42\n"


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", ["transformers", "native"])
def test_an_engine_streams_what_it_would_generate(tiny_model, name, temperature):
    engine = open_one(EngineOptions(str(tiny_model), engine=name))
    messages = [{"role": "user", "content": "1 + 1?"}]
    options = {"temperature": temperature, "top_p": 0.9, "seed": 3}
    pieces = [text for _, text in stream_answer(engine, messages, max_new_tokens=20, **options)]
    written = "".join(pieces)
    assert len(pieces) > 1
    sampling = Sampling(max_tokens=20, stop_token_ids=engine.stop_token_ids, **options)
    ((completion,),) = engine.engine.generate([Request(0, engine.render(messages), sampling)])
    assert written == completion.text


def test_an_engine_that_does_not_stream_answers_at_once(tiny_model):
    streaming = open_engine(EngineOptions(str(tiny_model)))

    class Whole(Engine):
        tokenizer, generate = streaming.engine.tokenizer, streaming.engine.generate

    messages = [{"role": "user", "content": "1 + 1?"}]
    options = {"temperature": 0.0, "max_new_tokens": 20}
    whole = replace(streaming, engine=Whole())
    assert joined(stream_answer(whole, messages, **options)) == joined(stream_answer(streaming, messages, **options))


def test_the_limit_follows_the_context(tiny_model):
    engine = open_engine(EngineOptions(str(tiny_model)))
    messages = [{"role": "user", "content": "1 + 1?"}]
    assert joined(stream_answer(engine, messages))
    with pytest.raises(UserError, match="more than the model's context"):
        stream_answer(engine, [{"role": "user", "content": "x" * 1000}])


def test_a_reader_that_leaves_ends_the_writing(tiny_model):
    words = [sys.executable, "-m", "open_r1.cli", "ask", "--model", str(tiny_model), "--seed", "3", "1 + 1?"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(60) in (0, 1) and b"terminate" not in process.stderr.read()


@pytest.mark.parametrize(("option", "value"), [("--temperature", "-1"), ("--temperature", "nan"), ("--top-p", "0")])
def test_sampling_that_cannot_be_is_refused(tiny_model, option, value):
    with pytest.raises(UserError, match=f"{option[2:].replace('-', '_')} is"):
        ask.main(["--model", str(tiny_model), option, value, "1 + 1?"])


def test_options_may_stand_in_a_file(tiny_model, tmp_path, capsys):
    (tmp_path / "ask.yaml").write_text(f"question: 1 + 1?\nmodel: {tiny_model}\nmax_new_tokens: 4\nseed: 3")
    ask.main(["--config", str(tmp_path / "ask.yaml")])
    first = capsys.readouterr().out
    ask.main(["--model", str(tiny_model), "--max_new_tokens", "4", "1 + 1?", "--seed", "3"])
    assert first.strip() and capsys.readouterr().out == first


def test_an_empty_question_is_refused(tiny_model):
    with pytest.raises(UserError, match="question is empty"):
        ask.main(["--model", str(tiny_model), " "])
