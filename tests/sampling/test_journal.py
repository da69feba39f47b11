"""The journal: what a kill leaves is read back, and damage is named."""

import json

import pytest

from open_r1.errors import UserError
from open_r1.sampling.journal import Journal, WriteError


def journal(tmp_path):
    return Journal(tmp_path / "rows.jsonl", lambda: "2 rows are kept.")


def row(number, text="x"):
    return {"index": number, "sample": 0, "completion": text}


def numbers(tmp_path):
    return [row["index"] for row in journal(tmp_path).read(set().__contains__)[0]]


def test_rows_and_their_seconds_come_back(tmp_path):
    journal(tmp_path).append([row(1, "é"), row(2)], 3.0)
    journal(tmp_path).append([row(3)], 1.0)
    assert journal(tmp_path).read(set().__contains__) == ([row(1, "é"), row(2), row(3)], 4.0)
    assert journal(tmp_path).read({(1, 0), (3, 0)}.__contains__) == ([row(2)], 1.5)


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_cut_short_is_removed_and_the_next_append_starts_a_line(tmp_path, cut):
    journal(tmp_path).append([row(1), row(2)], 0.0)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert numbers(tmp_path) == [1]
    journal(tmp_path).append([row(3)], 0.0)
    assert numbers(tmp_path) == [1, 3]


def test_reading_leaves_the_line_that_another_process_is_writing(tmp_path):
    path = tmp_path / "rows.jsonl"
    first, second = json.dumps(row(1)), json.dumps(row(2))
    path.write_text(f"{first}\n{second[:9]}")
    assert numbers(tmp_path) == [1]
    with path.open("a") as file:
        file.write(f"{second[9:]}\n")
    assert numbers(tmp_path) == [1, 2]


def test_a_row_without_seconds_and_one_that_is_there_twice_count_once(tmp_path):
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row(1))}\n" * 2)
    assert journal(tmp_path).read(set().__contains__) == ([row(1)], 0.0)


@pytest.mark.parametrize("line", ['{"a": ', "3", "null", '{"index": 2, "completion": "x"}', '{"index": "2"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row(1))}\n{line}\n{json.dumps(row(3))}\n")
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: not a finished sample. Delete the line"):
        journal(tmp_path).read(set().__contains__)


def test_a_folder_that_cannot_be_written_says_what_is_kept(tmp_path):
    with pytest.raises(WriteError, match=r"No such file or directory.*2 rows are kept"):
        Journal(tmp_path / "gone" / "rows.jsonl", lambda: "2 rows are kept.").append([row(1)], 0.0)
