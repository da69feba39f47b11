"""The journal: what a kill leaves is read back, and damage is named."""

import pytest

from open_r1.errors import UserError
from open_r1.sampling.journal import Journal, WriteError


def journal(tmp_path):
    return Journal(tmp_path / "rows.jsonl", lambda: "2 rows are kept.")


def test_rows_and_their_seconds_come_back(tmp_path):
    journal(tmp_path).append([{"a": "é"}, {"a": 2}], 3.0)
    journal(tmp_path).append([{"a": 3}], 1.0)
    rows = journal(tmp_path).read()
    assert [row["a"] for row in rows] == ["é", 2, 3]
    assert sum(row["seconds"] for row in rows) == 4.0


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_line_cut_short_is_removed_and_the_next_append_starts_a_line(tmp_path, cut):
    journal(tmp_path).append([{"a": 1}, {"a": 2}], 0.0)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [row["a"] for row in journal(tmp_path).read()] == [1]
    journal(tmp_path).append([{"a": 3}], 0.0)
    assert [row["a"] for row in journal(tmp_path).read()] == [1, 3]


def test_reading_leaves_the_line_that_another_process_is_writing(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    assert [row["a"] for row in journal(tmp_path).read()] == [1]
    with path.open("a") as file:
        file.write("2}\n")
    assert [row["a"] for row in journal(tmp_path).read()] == [1, 2]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: not JSON"):
        journal(tmp_path).read()


def test_a_folder_that_cannot_be_written_says_what_is_kept(tmp_path):
    with pytest.raises(WriteError, match=r"No such file or directory.*2 rows are kept"):
        Journal(tmp_path / "gone" / "rows.jsonl", lambda: "2 rows are kept.").append([{"a": 1}], 0.0)
