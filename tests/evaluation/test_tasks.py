"""Benchmarks from files, and what is said of bad ones."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation.code.programs import SUM

from open_r1.errors import UserError
from open_r1.evaluation.problems import digest
from open_r1.evaluation.tasks import TASKS, find_task, load_problems, with_prompt
from open_r1.options.columns import ColumnOptions


def write(path, rows):
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


ROWS = [{"problem": f"{i} + 1?", "answer": str(i + 1), "id": f"p{i}"} for i in range(5)]
GPQA = [
    {
        "Question": f"Which particle is number {i}?",
        "Correct Answer": "boson\n",
        "Incorrect Answer 1": "fermion",
        "Incorrect Answer 2": "anyon",
        "Incorrect Answer 3": "phonon",
        "Record ID": f"rec{i}",
    }
    for i in range(12)
]


@pytest.mark.parametrize("name", ["aime24.jsonl", "aime24.jsonl.gz"])
def test_a_task_is_read_from_the_data_dir(tmp_path, name):
    write(tmp_path / name, ROWS)
    problems = load_problems(find_task("aime24"), tmp_path, limit=3)
    assert [p.id for p in problems] == ["p0", "p1", "p2"]
    assert problems[0].gold == "1"
    assert problems[0].prompt.startswith("0 + 1?\n\n") and "\\boxed{}" in problems[0].prompt


def test_parquet_and_the_columns_of_the_hub(tmp_path):
    rows = [{"question": "1+1?", "answer": "It is 2.\n#### 2"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "gsm8k_test.parquet")
    (problem,) = load_problems(find_task("gsm8k"), tmp_path)
    assert (problem.problem, problem.gold, problem.id) == ("1+1?", "2", "gsm8k-0000")


def test_lists_of_answers_are_one_answer(tmp_path):
    write(tmp_path / "olympiadbench.jsonl", [{"question": "Roots?", "final_answer": ["1", "2"]}])
    assert load_problems(find_task("olympiadbench"), tmp_path)[0].gold == "1, 2"


def test_gpqa_shuffles_reproducibly_and_the_letter_follows(tmp_path):
    write(tmp_path / "gpqa_diamond.jsonl", GPQA)
    problems = load_problems(find_task("gpqa"), tmp_path)
    assert len({p.gold for p in problems}) > 1
    for problem in problems:
        line = next(line for line in problem.prompt.splitlines() if line.startswith(f"{problem.gold}) "))
        assert line == f"{problem.gold}) boson"
    assert load_problems(find_task("gpqa:diamond"), tmp_path, limit=4) == problems[:4]


def test_any_file_is_a_task(tmp_path):
    path = write(tmp_path / "mine.jsonl", ROWS)
    task = find_task(str(path))
    assert task.name == "mine"
    assert len(load_problems(task)) == 5


def test_a_file_is_read_as_every_command_reads_rows(tmp_path):
    asked = [{"role": "user", "content": "1 + 1?"}]
    rows = [{"prompt": asked, "reward_model": {"ground_truth": "2"}, "system": "Be brief."}, {"prompt": "2 + 2?"}]
    (problem,) = load_problems(find_task(str(write(tmp_path / "verl.jsonl", rows[:1]))))
    assert (problem.problem, problem.prompt, problem.gold) == ("1 + 1?", "1 + 1?", "2")
    assert problem.conversation.messages[0] == {"role": "system", "content": "Be brief."}
    columns = ColumnOptions(prompt_column="x.q", answer_column="x.a")
    path = write(tmp_path / "dotted.jsonl", [{"x": {"q": "1 + 1?", "a": "2"}}])
    (problem,) = load_problems(find_task(str(path)), columns=columns)
    assert problem.conversation is None and problem.prompt.startswith("1 + 1?\n\nPlease reason")
    (tmp_path / "rows.csv").write_text("question;final_answer\n1 + 1?;2\n")
    assert load_problems(find_task(str(tmp_path / "rows.csv")))[0].gold == "2"
    with pytest.raises(UserError, match=r"there is no column prompt, .*there are: x .q, a.*--prompt_column"):
        load_problems(find_task(str(path)))


def test_an_unknown_task_lists_the_known():
    with pytest.raises(UserError) as error:
        find_task("gpt")
    assert all(name in str(error.value) for name in TASKS)
    with pytest.raises(UserError, match="Did you mean 'math_500'"):
        find_task("math500")


def test_a_missing_file_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"aime25\.jsonl, aime25\.jsonl\.gz, aime25\.parquet.*math-ai/aime25"):
        load_problems(find_task("aime25"), tmp_path)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([*ROWS, {"problem": "x?", "answer": " ", "id": "z"}], "row 6, column answer: it is empty"),
        ([{"problem": "x?", "result": "1"}], "no column has right answers; the columns are: problem, result"),
        ([ROWS[0], ROWS[0]], "row 2: the id 'p0' is also that of row 1"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, expected):
    path = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(UserError, match=expected) as error:
        load_problems(find_task(str(path)))
    assert "mine.jsonl" in str(error.value)


def test_the_digest_tells_versions_apart(tmp_path):
    path = write(tmp_path / "mine.jsonl", ROWS)
    problems = load_problems(find_task(str(path)))
    assert digest(problems) == digest(list(problems))
    assert digest(problems) != digest(problems[:-1])


def test_a_task_can_be_asked_in_other_words(tmp_path):
    (tmp_path / "sums.jsonl").write_text(json.dumps({"problem": "What is {1} + 1?", "answer": "2"}) + "\n")
    task = find_task(str(tmp_path / "sums.jsonl"))
    assert load_problems(with_prompt(task, "{problem}"))[0].prompt == "What is {1} + 1?"
    assert (
        load_problems(with_prompt(task, "Box it, \\boxed{}: {problem}"))[0].prompt
        == "Box it, \\boxed{}: What is {1} + 1?"
    )
    with pytest.raises(UserError, match=r"expected \{problem\} where task sums inserts its own"):
        with_prompt(task, "Think.")
    with pytest.raises(UserError, match=r"expected \{choices\}"):
        with_prompt(TASKS["gpqa:diamond"], "{problem}")


def test_files_of_a_hub_dataset_are_read_past_its_loading_script(monkeypatch, tmp_path):
    asked = []

    def download(id, name, **options):
        asked.append((id, name, options["repo_type"]))
        (tmp_path / name).write_text(json.dumps(SUM) + "\n")
        return str(tmp_path / name)

    monkeypatch.setattr("open_r1.hub.why_unreachable", lambda: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    (problem,) = load_problems(find_task("lcb_v4"), None)
    assert asked == [("livecodebench/code_generation_lite", "test4.jsonl", "dataset")]
    assert problem.id == "sum"


def test_a_broken_line_of_a_file_of_programs_is_named(tmp_path):
    (tmp_path / "lcb.jsonl").write_text(json.dumps(SUM) + "\n\n{\n")
    with pytest.raises(UserError, match=r"lcb.jsonl, line 3: not JSON"):
        load_problems(find_task("lcb"), tmp_path)
