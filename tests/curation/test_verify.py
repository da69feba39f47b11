"""`open-r1 data verify`."""

import random

import pytest
from toys import make_model, make_tokenizer

from open_r1 import grpo, sft
from open_r1.curation import verify
from open_r1.curation.quality import foreign_letters, is_loop
from open_r1.curation.reasoning import with_think_marks
from open_r1.errors import UserError
from open_r1.rewards import Verdict, grade_many

RIGHT = "<think>\nTwo and two.\n</think>\n\\boxed{4}"


def row(completion, problem="2 + 2?", answer="4", **more):
    return {"problem": problem, "answer": answer, "completion": completion, "finish_reason": "stop", **more}


def words(count, seed=0):
    generator = random.Random(seed)
    return " ".join("".join(generator.choices("abcdefghijklmnop", k=generator.randint(2, 9))) for _ in range(count))


def test_right_answers_become_conversations(data, jsonl):
    rows = [
        row("<think>\nHm.\n</think>\n\\boxed{5}"),
        row(RIGHT),
        row(RIGHT + " again"),
        row(RIGHT, "1 + 3?"),
        row(RIGHT, "3 + 3?", "6"),
    ]
    kept, report = data("verify", jsonl(rows))
    assert [r["messages"] for r in kept] == [
        [{"role": "user", "content": p}, {"role": "assistant", "content": RIGHT.replace("\n\\boxed", "\n\n\\boxed")}]
        for p in ("2 + 2?", "1 + 3?")
    ]
    assert "completion" not in kept.column_names
    assert report["dropped"] == {"wrong": 2, "right, but not selected": 1}
    assert (report["read"], report["kept"]) == (5, 2)
    assert report["examples"]["wrong"] == ["row 1", "row 5"]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ([], [0, 3]),
        (["--choose", "shortest"], [1, 3]),
        (["--choose", "all"], [0, 1, 2, 3]),
        (["--per-problem", "2"], [0, 1, 3]),
        (["--choose", "shortest", "--per-problem", "2"], [1, 2, 3]),
    ],
)
def test_which_right_answers_are_chosen(data, jsonl, options, kept):
    sizes = [9, 5, 7]
    rows = [row(RIGHT, n_tokens=n, number=i) for i, n in enumerate(sizes)] + [row(RIGHT, "b?", n_tokens=3, number=3)]
    found, _ = data("verify", jsonl(rows), *options)
    assert found["number"] == kept


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("<think>\nTwo and two is \\boxed{4}", finish_reason="length"), "cut off"),
        (row("<think>\n" + "Wait, let me check that again. " * 60 + "</think> \\boxed{4}"), "repeats itself"),
        (row("<think>\n我们现在用的条件是二加二等于四\n</think>\n\\boxed{4}"), "switches to another script"),
        (row("<think>\n\n</think>\n\\boxed{4}"), "no reasoning"),
        (row("<think>\nNever ends: 4"), "no answer"),
        (row(" "), "empty"),
        (row(RIGHT, answer=""), "ungradable: the gold answer is empty"),
    ],
)
def test_what_is_dropped_whatever_its_answer(data, jsonl, bad, reason):
    kept, report = data("verify", jsonl([bad, row(RIGHT, "x?")]))
    assert report["dropped"] == {reason: 1}
    assert kept["problem"] == ["x?"]


def test_several_completions_in_a_cell_are_candidates_each(data, jsonl):
    rows = [{"problem": "2 + 2?", "answer": "4", "generations": ["<think>\na\n</think>\n\\boxed{3}", RIGHT]}]
    kept, report = data("verify", jsonl(rows))
    assert kept[0]["messages"][1]["content"].startswith("<think>\nTwo and two.")
    assert report["read"] == 2


def test_conversations_are_verified_too(data, jsonl):
    chat = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": RIGHT}]
    kept, _ = data("verify", jsonl([{"conversations": chat, "solution": "It is \\boxed{4}"}]))
    assert [m["role"] for m in kept[0]["messages"]] == ["user", "assistant"]


def test_earlier_reasoning_and_calls_of_tools_stay(data, jsonl):
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    chat = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "Let me add.", "reasoning": "use the tool", "tool_calls": [call]},
        {"role": "tool", "content": "4", "name": "add"},
        {"role": "assistant", "content": RIGHT},
    ]
    kept, _ = data("verify", jsonl([{"messages": chat, "answer": "4", "tools": "[]"}]))
    (messages,) = kept["messages"]
    assert messages[1]["content"] == "<think>\nuse the tool\n</think>\n\nLet me add."
    assert messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 2}'}
    assert (messages[2]["content"], messages[2]["name"]) == ("4", "add") and kept.column_names[-1] == "messages"


def test_a_completion_of_messages_follows_its_prompt(data, jsonl):
    rows = [{"prompt": "2 + 2?", "completion": [{"role": "assistant", "content": RIGHT}], "info": {"gold": "4"}}]
    kept, _ = data("verify", jsonl(rows), "--answer-column", "info.gold")
    assert [m["content"][:6] for m in kept[0]["messages"]] == ["2 + 2?", "<think"]


def test_a_conversation_without_a_last_content_is_one_wrong_answer(data, jsonl):
    said = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "\\boxed{4}"}]
    unsaid = [said[0], {"role": "assistant", "content": None}]
    kept, _ = data("verify", jsonl([{"conversations": c, "solution": "4"} for c in (said, unsaid)]))
    assert len(kept) == 1


def test_a_dry_run_reports_and_writes_nothing(data, jsonl, tmp_path, capsys):
    assert data("verify", jsonl([row(RIGHT), row("\\boxed{9}")]), "--dry-run") == (None, None)
    assert "wrong" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_options_may_stand_in_a_file(data, jsonl, tmp_path):
    rows = jsonl([row(["x", RIGHT, RIGHT])] * 2)
    (tmp_path / "verify.yaml").write_text(f"dataset: {rows}\nchoose: all\nsplit: train[:1]\n")
    kept, report = data("verify", "--config", tmp_path / "verify.yaml")
    assert (len(kept), report["read"]) == (2, 3)


def test_the_answer_is_that_of_the_verdict_even_where_a_second_one_would_be_none(data, jsonl, monkeypatch):
    graded = iter([grade_many(completions=["It is \\boxed{4}"], golds=["4"])])
    monkeypatch.setattr(verify, "grade_many", lambda **_: next(graded, [Verdict(None, None, "out of time")]))
    kept, _ = data("verify", jsonl([row("It is four, so it is \\boxed{4}")]))
    assert kept["messages"][0][-1]["content"].endswith("</think>\n\n\\boxed{4}")


def test_when_nothing_is_left_nothing_is_written(data, jsonl, tmp_path):
    with pytest.raises(UserError, match=r"no rows of .* are left"):
        data("verify", jsonl([row("\\boxed{9}")]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"problem": "a", "answer": "1"}], "no column completion, generation"),
        ([{"problem": "a", "completion": "1"}], "no column has right answers; the columns are: problem, completion"),
        (
            [{"x": "a", "completion": "1", "answer": "1"}],
            "no column problem, question.*there are: x, completion.*--prompt_column",
        ),
    ],
)
def test_missing_columns_are_named(data, jsonl, rows, expected):
    with pytest.raises(UserError, match=expected):
        data("verify", jsonl(rows))


def test_an_output_that_is_there_is_refused(data, jsonl, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="already exists"):
        data("verify", jsonl([row(RIGHT)]))


def test_verified_rows_go_straight_into_training(data, jsonl, tmp_path):
    data("verify", jsonl([row(RIGHT, f"{i} + {4 - i}?") for i in range(5)]))
    model = make_model(make_tokenizer(tmp_path / "tiny"))
    common = ["--model_name_or_path", str(model), "--dataset_name", str(tmp_path / "out"), "--report_to", "none"]
    common += ["--max_steps", "1", "--output_dir", str(tmp_path / "run")]
    sft.main([*common, "--max_length", "128", "--per_device_train_batch_size", "2"])
    assert (tmp_path / "run" / "model.safetensors").exists()
    grpo.main([*common, "--dataset_prompt_column", "problem", "--max_completion_length", "64", "--dry_run"])


@pytest.mark.parametrize("period", [3, 20, 100, 500, 1500])
def test_loops_of_any_length_are_found_behind_sound_text(period):
    loop = words(period)[:period] + " "
    assert is_loop(words(300, seed=1) + loop * max(12, 1500 // period))


def test_sound_text_is_no_loop():
    assert not is_loop(words(3000))
    assert not is_loop(", ".join(str(n * n) for n in range(400)))
    assert not is_loop("4")


def test_letters_of_other_scripts_are_counted():
    assert foreign_letters("Erdős: π² ≤ α", "x?") == 0
    assert foreign_letters("но and 条件", "x?") == 4
    assert foreign_letters("条件", "条 is?") == 0


@pytest.mark.parametrize(
    ("completion", "content"),
    [
        ("<think>\na\n</think>\nb", "<think>\na\n</think>\n\nb"),
        ("a\n</think>\n\nb", "<think>\na\n</think>\n\nb"),
        ("a\n\nb\n\n**Final Answer**\n\\boxed{4}", "<think>\na\n\nb\n</think>\n\n**Final Answer**\n\\boxed{4}"),
        ("so it is 4.", "<think>\nso it is 4.\n</think>\n\n\\boxed{4}"),
        ("<think>\na", None),
        ("<think>\n</think>\nb", None),
        ("<think>\na\n</think>", None),
    ],
)
def test_think_marks(completion, content):
    assert with_think_marks(completion, "4") == content


def test_verdicts_are_counted_by_reason(data, jsonl):
    boxed = "<think>\nsum\n</think>\n\\boxed{5 cm}"
    rows = [row(boxed, "a?") | {"answer": "5"}, row(boxed, "b?") | {"answer": "6"}]
    _, report = data("verify", jsonl(rows))
    assert report["right: compared as text or number; heuristic: a unit on one side only"] == 1
    assert report["wrong: compared as text or number; heuristic: a unit on one side only"] == 1
