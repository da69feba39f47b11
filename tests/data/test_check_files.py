"""Files that would end the process, shift columns or fill the memory are named with line and remedy."""

import gzip

import pytest

from open_r1.data import check_files
from open_r1.data.load import load_split
from open_r1.errors import UserError

GOOD = b'{"problem": "a", "answer": "5"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"problem,answer\nWhat is 1, plus 2?,3\nx,4\n", r"a\.csv, line 2: 3 values.*2 columns.*quotes"),
        ("a.csv", b"problem,answer\na,5\nb\n", r"a\.csv, line 3: 1 values.*2 columns"),
        ("a.csv", b"problem,answer\ncaf\xe9,5\n", r"a\.csv, row 2: .*not UTF-8.*0xe9.*iconv"),
        ("a.jsonl", GOOD + b'{"problem": "caf\xe9", "answer": "5"}\n', r"a\.jsonl, row 2: .*not UTF-8.*iconv"),
        ("a.jsonl", b"null\n" + GOOD, r"a\.jsonl, row 1: expected a JSON object, found null"),
        ("a.jsonl", GOOD + b'{"problem": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", r"row 2: brackets are nested"),
        ("a.jsonl", GOOD + b'{"problem": "\\ud800", "answer": "5"}\n', r"row 2: half of a surrogate pair.*ufffd"),
        ("a.jsonl", GOOD + b'{"problem": "b", "answer": NaN}\n', r"row 2, column answer: NaN and Infinity.*write null"),
        ("a.jsonl", GOOD + b'{"problem": "b", "answer": 5}\n', r"'answer' holds text in row 1 and a number in row 2"),
        ("a.csv", b"sep=;\na;b\n1;2\n", r"a\.csv, line 1: 'sep=;' is not a header: delete the line"),
        ("a.csv", b"problem;answer\n1+1;2\n2;3;4\n", r"a\.csv, line 3: 3 values.*2 columns.*holds a semicolon"),
        ("a.csv", b"problem,answer,answer\n1,2,3\n", r"a\.csv, line 1: two columns are named 'answer'"),
        ("a.csv", "problem,answer\na,5\n".encode("utf-16"), r"a\.csv: the file is in UTF-16.*iconv -f utf-16"),
        (
            "a.jsonl",
            GOOD + b'{"problem": "b", "answer": "5", "answer": "6"}\n',
            r"row 2: one object has the key 'answer' twice",
        ),
        ("a.jsonl", GOOD + b'{"problem": "' + b"b" * 5000 + b'"}\n', r"row 2: the line has more than"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_file_line_and_remedy_are_named(tmp_path, monkeypatch, name, content, message, packed):
    if b"b" * 5000 in content:
        monkeypatch.setattr(check_files, "LONGEST_LINE", 1000)
    path = tmp_path / (name + (".gz" if packed else ""))
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match=message.replace(r"a\.csv", r"a\.csv\S*").replace(r"a\.jsonl", r"a\.jsonl\S*")):
        load_split(str(path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('"' + "b" * 5000 + '"', r"a\.json, row 2: the row has more than"),
        ('"\\ud800"', r"a\.json, row 2: half of a surrogate pair"),
        ("\n".join("[" * 100_000) + "\n".join("]" * 100_000), r"a\.json: brackets are nested"),
    ],
)
def test_rows_over_several_lines_have_the_same_limits(tmp_path, monkeypatch, rows, message):
    monkeypatch.setattr(check_files, "LONGEST_LINE", 1000)
    (tmp_path / "a.json").write_text('[\n {\n  "problem": "a"\n },\n {\n  "problem":\n ' + rows + "\n }\n]\n")
    with pytest.raises(UserError, match=message):
        load_split(str(tmp_path / "a.json"))


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for path in (tmp_path, tmp_path / "train.parquet"):
        with pytest.raises(UserError, match=r"train\.parquet is a Git LFS pointer.*git lfs pull"):
            load_split(str(path))


def test_good_files_are_read(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffproblem,answer\n"1, plus\n2?",3\n\nx,4\n')
    assert load_split(str(tmp_path / "a.csv"))["problem"][:] == ["1, plus\n2?", "x"]
    (tmp_path / "a.jsonl").write_bytes(b'\n{"problem": "\\ud83d\\ude00"}\n')
    assert load_split(str(tmp_path / "a.jsonl"))["problem"][:] == ["\U0001f600"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": [{"a": 1}], "test": [{"a": 2}]}', "several lists of rows .train, test.*a separate file"),
        ('{"problem": ["a", "b"], "answer": ["1", "2"]}', "has columns .problem, answer.*orient='records'"),
        ('{"problem": {"0": "a", "1": "b"}, "answer": {"0": "1", "1": "2"}}', "has columns .problem, answer"),
        ('["a", "b"]', "row 1: expected an object, found 'a'"),
        ('[{"answer": 1}, {"answer": NaN}]', "row 2, column answer: NaN and Infinity"),
        ('[{"answer": "1"}, {"answer": 1}]', "'answer' holds text in row 1 and a number in row 2"),
    ],
)
def test_documents_that_are_no_list_of_rows_are_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_split(str(path))


def test_the_list_of_rows_in_a_document_is_found_and_the_rest_named(tmp_path, caplog):
    path = tmp_path / "a.json"
    path.write_text('{"version": 1, "data": [{"answer": "1"}, {"answer": "2"}]}')
    assert load_split(str(path))["answer"][:] == ["1", "2"]
    assert "reading the 2 rows under 'data'; version is ignored" in caplog.text
    for row in ('{"messages": [{"role": "user", "content": "a"}]}', '{"problem": "a", "tests": [{"input": "1"}]}'):
        path = tmp_path / f"{len(row)}.json"
        path.write_text(row)
        assert len(load_split(str(path))) == 1  # a row, not a document around rows


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t"), ("a.csv", ",")])
def test_values_are_read_as_they_are_written_whatever_stands_between_them(tmp_path, name, mark):
    lines = [["problem", "answer", "level"], ["1, 2; 3\t4", "007", "1"], ["None", "NA", "2"], ["x", "", "3"]]
    path = tmp_path / name
    path.write_text(
        "\ufeff" + "".join(mark.join(f'"{cell}"' if cell else "" for cell in line) + "\r\n" for line in lines)
    )
    rows = load_split(str(path))
    assert rows["problem"][:] == ["1, 2; 3\t4", "None", "x"]
    assert [answer or "" for answer in rows["answer"]] == ["007", "NA", ""]
    assert rows["level"][:] == [1, 2, 3]
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / name)
    assert load_split(str(folder))["problem"][:] == rows["problem"][:]
