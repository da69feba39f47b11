import glob
import gzip
import json
import lzma
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from open_r1.configs import DataConfig
from open_r1.data.load import load_split, load_train_and_eval, require_columns, source_name
from open_r1.errors import UserError

ROWS = [{"problem": f"{i} + 1", "answer": str(i + 1)} for i in range(10)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write_jsonl(path: Path, rows=ROWS) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def test_every_local_form_gives_the_same_rows(tmp_path):
    dataset = Dataset.from_list(ROWS)
    dataset.save_to_disk(tmp_path / "saved")
    DatasetDict(train=dataset, test=dataset.select(range(2))).save_to_disk(tmp_path / "saved_dict")
    (tmp_path / "folder").mkdir()
    dataset.to_parquet(tmp_path / "folder" / "train.parquet")
    dataset.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    (tmp_path / "rows.csv").write_text("problem,answer\n" + "".join(f'"{r["problem"]}",a{r["answer"]}\n' for r in ROWS))
    sources = ["saved", "saved_dict", "folder", "rows.parquet", "rows.json", "rows.csv"]
    write_jsonl(tmp_path / "rows.jsonl")
    write_jsonl(tmp_path / "rows2.jsonl.gz")
    (tmp_path / "rows.jsonl.xz").write_bytes(lzma.compress((tmp_path / "rows.jsonl").read_bytes()))
    shutil.copy(next((tmp_path / "saved").glob("*.arrow")), tmp_path / "rows.arrow")
    for source in [*sources, "rows.jsonl", "rows2.jsonl.gz", "rows.jsonl.xz", "rows.arrow"]:
        loaded = load_split(str(tmp_path / source), split="train[2:4]")
        assert loaded["problem"][:] == ["2 + 1", "3 + 1"], source
        assert source_name(loaded).endswith(source)
    assert len(load_split(str(tmp_path / "saved_dict"), split="test")) == 2


def test_columns_are_selected_or_named(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl")
    assert load_split(path, columns=["answer"]).column_names == ["answer"]
    with pytest.raises(
        UserError, match=r"rows.jsonl: there is no column 'problm'; there are: problem, answer.*'problem'"
    ):
        load_split(path, columns=["problm"])
    with pytest.raises(UserError, match="the dataset: there is no column 'x'"):
        require_columns(Dataset.from_list(ROWS), "problem", "x")


@pytest.mark.parametrize(
    ("third_line", "message"),
    [
        ('{"problem": "2 + 1", "answer": ', r"rows.jsonl, row 3: this line is not valid JSON"),
        ("[1, 2]", r"rows.jsonl, row 3: expected a JSON object, found .1, 2"),
    ],
)
def test_a_broken_line_is_named(tmp_path, third_line, message):
    lines = [json.dumps(row) for row in ROWS]
    lines[2] = third_line
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=message) as caught:
        load_split(str(path))
    assert "\n" not in str(caught.value)


def test_a_damaged_gz_file_is_named(tmp_path):
    path = Path(write_jsonl(tmp_path / "rows.jsonl.gz"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"rows.jsonl.gz, row .*damaged or truncated"):
        load_split(str(path))


def test_what_is_missing_or_empty_is_named(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "folder").mkdir()
    for name in ("rows.txt", "rows.xlsx", "rows.jsonl.zst"):
        (tmp_path / name).write_text("no data")
    for name, message in {
        "empty.jsonl": "the file is empty",
        "blank.jsonl": "no rows",
        "text.parquet": "text.parquet, split train: .*Parquet",
        "rows.txt": "expected a .jsonl.*convert its rows to .jsonl",
        "rows.xlsx": "expected a .jsonl.*save it as CSV",
        "rows.jsonl.zst": "expected a .jsonl.*zstd -d",
        "folder": "the folder has no .jsonl",
        "none.jsonl": "no such file",
        "none/at/all": "no such file",
    }.items():
        with pytest.raises(UserError, match=message):
            load_split(str(tmp_path / name))


def test_a_file_has_one_split(tmp_path):
    args = DataConfig(dataset_name=write_jsonl(tmp_path / "rows.jsonl"))
    with pytest.raises(UserError, match=r"only the split train, not 'test'.*train\[-100:\]"):
        load_train_and_eval(args, need_eval=True)
    args.dataset_train_split, args.dataset_test_split = "train[:-3]", "train[-3:]"
    train, evaluation = load_train_and_eval(args, need_eval=True)
    assert (len(train), len(evaluation)) == (7, 3)
    assert load_train_and_eval(args, need_eval=False)[1] is None
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="split 'test' cannot be read"):
        load_split(str(tmp_path / "saved"), split="test")


def test_mixture_keeps_shares_and_columns(tmp_path):
    other = [{"problem": f"other {i}", "answer": "0", "source": "x"} for i in range(20)]
    mixture = {
        "datasets": [
            {"id": write_jsonl(tmp_path / "a.jsonl"), "weight": 0.5},
            {"id": write_jsonl(tmp_path / "b.jsonl", other), "columns": ["problem", "answer"], "weight": 0.25},
        ],
        "seed": 1,
        "test_split_size": 0.2,
    }
    train, evaluation = load_train_and_eval(DataConfig(dataset_mixture=mixture), need_eval=True)
    problems = train["problem"][:] + evaluation["problem"][:]
    assert (len(train), len(evaluation)) == (8, 2)
    assert sum(p.startswith("other") for p in problems) == 5
    assert len(set(problems)) == 10
    again, _ = load_train_and_eval(DataConfig(dataset_mixture=mixture), need_eval=True)
    assert again["problem"][:] == train["problem"][:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": []}, "expected `datasets`"),
        ({"sed": 3}, "unknown key 'sed'. Did you mean 'seed'"),
        ({"part": {"weight": 2}}, r"datasets\[0\]: weight is 2"),
        ({"part": {"path": "x"}}, r"datasets\[0\]: unknown key 'path'"),
        ({"part": {"columns": ["answer"]}}, "columns answer, but .*b.jsonl has problem, answer"),
        ({"test_split_size": 100}, "test_split_size is 100"),
    ],
)
def test_mixture_mistakes_are_named(tmp_path, change, message):
    first = {"id": write_jsonl(tmp_path / "a.jsonl")} | change.pop("part", {})
    mixture = {"datasets": [first, {"id": write_jsonl(tmp_path / "b.jsonl")}]} | change
    with pytest.raises(UserError, match=message):
        load_train_and_eval(DataConfig(dataset_mixture=mixture), need_eval=False)


def test_name_and_mixture_exclude_each_other():
    with pytest.raises(UserError, match="dataset_name is missing"):
        load_train_and_eval(DataConfig(), need_eval=False)
    with pytest.raises(UserError, match="both set"):
        load_train_and_eval(DataConfig(dataset_name="a", dataset_mixture={}), need_eval=False)


def test_a_hub_id_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="dataset no-one/nothing is neither a local path"):
        load_split("no-one/nothing")


README = """---
configs:
- config_name: core
  data_files: core/*.jsonl
- config_name: more
  data_files:
  - split: train
    path: more/*.jsonl
---
"""


def test_configurations_of_a_local_clone_are_read_as_on_the_hub(tmp_path, caplog):
    for name in ("core", "more"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "rows.jsonl", [{"problem": name}])
    (tmp_path / "README.md").write_text(README)
    for name in ("core", "more"):
        assert load_split(str(tmp_path), config=name)["problem"][:] == [name]
    for wanted in ("nonsense", None):
        with pytest.raises(UserError, match="'core', 'more'" if wanted else "'core', 'more'.*give dataset_config"):
            load_split(str(tmp_path), config=wanted)
    assert len(load_split(str(tmp_path / "core" / "rows.jsonl"), config="core")) == 1
    assert "dataset_config 'core' has no effect" in caplog.text and "is a single file" in caplog.text


def test_the_working_directory_is_a_folder_like_others(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text('{"prompt": "1+1?"}\n')
    monkeypatch.chdir(tmp_path / "rows")
    assert load_split(".")["prompt"] == ["1+1?"]


@pytest.mark.parametrize("name", ["my rows", "ü 数", "rows [1]", "what*?"])
def test_odd_characters_in_a_path(tmp_path, name):
    file = tmp_path / name / f"{name}.jsonl"
    file.parent.mkdir()
    file.write_text('{"prompt": "1+1?"}\n')
    assert load_split(str(file))["prompt"] == ["1+1?"]
    if glob.has_magic(name):
        with pytest.raises(UserError, match=r"if its path has \*, \? or \[: rename it"):
            load_split(str(file.parent))
    else:
        assert load_split(str(file.parent))["prompt"] == ["1+1?"]


def test_paths_relative_to_a_folder_with_brackets(tmp_path, monkeypatch):
    for name in ("a[1]", "plain"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "train.jsonl")
    monkeypatch.chdir(tmp_path / "a[1]")
    for path in ("train.jsonl", "../plain/train.jsonl", "../plain"):
        assert len(load_split(path)) == 10
    with pytest.raises(UserError, match="rename it, or give one file"):
        load_split(".")


def test_a_folder_loads_though_a_file_that_is_not_used_is_ragged(tmp_path, caplog):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(folder / name)
    (folder / "notes.csv").write_text("a,b\n1,2,3\n")
    assert len(load_split(str(folder))) == 20
    assert "1 files are ignored, notes.csv: only files of one kind are read from a folder" in caplog.text


def test_the_report_that_our_tools_leave_beside_rows_is_no_unread_file(tmp_path, caplog):
    folder = tmp_path / "rows"
    for part in ("data", "run"):
        (folder / part).mkdir(parents=True)
    Dataset.from_list([{"problem": "1 + 1?"}]).to_parquet(folder / "data" / "train-00000.parquet")
    (folder / "run" / "report.json").write_text("{}")
    assert len(load_split(str(folder))) == 1
    assert caplog.text == ""


def test_files_with_different_columns_name_file_column_and_types(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"answer": "2"}])
    write_jsonl(tmp_path / "b.jsonl", [{"answer": 2, "extra": 1}])
    with pytest.raises(UserError, match=r"b\.jsonl: column 'answer' holds a number, but text in .*a\.jsonl"):
        load_split(str(tmp_path))
