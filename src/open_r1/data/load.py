"""Loads datasets from the hub, local folders and local files, with errors that name file, row and column."""

import glob
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetDict,
    Json,
    ReadInstruction,
    concatenate_datasets,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets import config as datasets_config

from open_r1.configs import DataConfig
from open_r1.data.broken_files import different_columns, explain, mixed_column
from open_r1.data.check_files import check_text_files
from open_r1.data.opened import BUILDERS, REMEDIES, kind_of
from open_r1.errors import UserError, did_you_mean, first_line, one_line, warn_user
from open_r1.hub import reading_hub

datasets_config.HF_UPDATE_DOWNLOAD_COUNTS = False  # `datasets` would report every local file that is opened

KINDS = ".jsonl, .json, .csv, .tsv (also .gz, .bz2 or .xz), .parquet or .arrow"
MIXTURE_KEYS = {"datasets", "seed", "test_split_size"}
PART_KEYS = {"id", "config", "split", "columns", "weight"}


def load_split(
    path_or_id: str, *, config: str | None = None, split: str = "train", columns: list[str] | None = None
) -> Dataset:
    """One split, such as `train` or `train[:100]`, of a hub dataset, a local folder (of data files, or saved with
    `save_to_disk`) or a file of `KINDS`. If `columns` is given, only these columns.

    Raises `UserError` for what is missing, empty or broken. `source_name` of the result is `path_or_id`.
    """
    path = Path(path_or_id).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        _warn_of_unused_config(path, config, "saved with save_to_disk")
        dataset = _load_saved(path, split)
    elif path.exists() or _looks_local(path_or_id):
        dataset = _load_files(path, config, split)
    else:
        try:
            with reading_hub(path_or_id, "dataset"):
                dataset = load_dataset(path_or_id, config, split=split)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"dataset {path_or_id!r} is not a local file or folder, and cannot be read from the hub: "
                f"{one_line(error)}"
            ) from error
    if len(dataset) == 0:
        raise UserError(f"{path_or_id}, split {split}: there are no rows.")
    dataset.info.description = path_or_id
    if columns is not None:
        require_columns(dataset, *columns)
        dataset = dataset.select_columns(columns)
    return dataset


def load_train_and_eval(args: DataConfig, *, need_eval: bool) -> tuple[Dataset, Dataset | None]:
    """The rows to train on and, if `need_eval`, those to evaluate on, from `dataset_name` or `dataset_mixture`.

    Raises `UserError` if neither or both are set, or if there is no evaluation set."""
    if args.dataset_mixture is not None:
        if args.dataset_name is not None:
            raise UserError("dataset_name and dataset_mixture are both set: remove one of them.")
        train, evaluation = _load_mixture(args.dataset_mixture)
        if need_eval and evaluation is None:
            raise UserError("eval_strategy needs an evaluation set: set test_split_size in dataset_mixture.")
        return train, evaluation if need_eval else None
    if args.dataset_name is None:
        raise UserError("dataset_name is missing: give a hub id, a local folder or a file (or dataset_mixture).")
    train = load_split(args.dataset_name, config=args.dataset_config, split=args.dataset_train_split)
    if not need_eval:
        return train, None
    return train, load_split(args.dataset_name, config=args.dataset_config, split=args.dataset_test_split)


def source_name(dataset: Dataset) -> str:
    """What `dataset` was loaded from, for error messages; "the dataset" if `load_split` did not load it."""
    names = [name for name in (dataset.info.description or "").split("\n") if name]
    return ", ".join(names) or "the dataset"


def columns_of(dataset: Dataset) -> str:
    """The columns of `dataset` and their fields, for error messages."""
    features = dataset.features
    return ", ".join(f"{n} ({', '.join(f)})" if isinstance(f, dict) else n for n, f in features.items())


def require_columns(dataset: Dataset, *names: str, remedy: str = "") -> None:
    """Raises `UserError` with the existing columns and `remedy` unless `dataset` has all columns `names`."""
    for name in names:
        if name not in dataset.column_names:
            hint = did_you_mean(name, dataset.column_names, cutoff=0.8)
            reason = f"there is no column {name!r}; there are: {columns_of(dataset)}.{hint} {remedy}"
            raise UserError(f"{source_name(dataset)}: {reason.strip()}")


def _load_saved(path: Path, split: str) -> Dataset:
    saved = load_from_disk(path)
    parts = saved if isinstance(saved, DatasetDict) else {"train": saved}
    try:
        slices = ReadInstruction.from_spec(split).to_absolute({name: len(part) for name, part in parts.items()})
    except (ValueError, AssertionError) as error:
        raise UserError(f"{path}: split {split!r} cannot be read: {first_line(error)}") from error
    chosen = [parts[part.splitname].select(range(part.from_, part.to)) for part in slices]
    return chosen[0] if len(chosen) == 1 else concatenate_datasets(chosen)


def _warn_of_unused_config(path: Path, config: str | None, what: str) -> None:
    """A warning, not an error: a recipe sets it for a hub dataset that the command line may replace with a file."""
    if config is not None:
        warn_user("dataset_config %r has no effect: %s is %s, which has no configurations.", config, path, what)


def _check_path(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder.")
    if path.is_dir():
        if not any(kind_of(file) in BUILDERS for file in path.rglob("*")):
            raise UserError(f"{path}: the folder has no {KINDS} file.")
        if glob.has_magic(str(_absolute(path))):  # `datasets` takes a folder's path for a pattern
            raise UserError(f"{path}: a folder cannot be read if its path has *, ? or [: rename it, or give one file.")
        return
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty.")
    if kind_of(path) not in BUILDERS:
        remedy = REMEDIES.get(path.suffix.lower(), "")
        raise UserError(f"{path}: expected a {KINDS} file{': ' if remedy else ''}{remedy}.")


def _absolute(path: Path) -> Path:
    """The absolute path without `..`. Links are kept where there is none."""
    return path.resolve() if ".." in path.parts else path.absolute()


def _load_files(path: Path, config: str | None, split: str) -> Dataset:
    _check_path(path)
    files = [path]
    try:
        if path.is_dir():
            folder = str(_absolute(path))  # `datasets` needs the name of a folder; "." is none
            builder = load_dataset_builder(folder, config)
            files = [Path(file) for part in (builder.config.data_files or {}).values() for file in part]
            arguments = check_text_files(files)
            _warn_of_ignored_files(path, files)
            dataset = load_dataset(folder, config, split=split, **arguments)
        else:
            _warn_of_unused_config(path, config, "a single file")
            arguments = check_text_files(files)
            file = glob.escape(str(_absolute(path)))
            dataset = load_dataset(BUILDERS[kind_of(path)], data_files=file, split=split, **arguments)
        mixed = [name for name, feature in dataset.features.items() if isinstance(feature, Json)]
        if reason := mixed_column([file for file in files if kind_of(file) in (".json", ".jsonl")], mixed):
            raise UserError(reason)
        return dataset
    except UserError:
        raise
    except Exception as error:
        if "Unknown split" in str(error) and path.is_file():
            raise UserError(
                f"{path}: a single file has only the split train, not {split!r}. Slices of it work, such as "
                "dataset_train_split: train[:-100] and dataset_test_split: train[-100:]."
            ) from error
        if "corresponds to no data" in str(error):
            raise UserError(f"{path}, split {split}: there are no rows.") from error
        cause = _with_our_option(one_line(_root_cause(error)))
        reason = explain(files) or different_columns(files) or f"{path}, split {split}: {cause}"
        raise UserError(reason) from error


def _with_our_option(cause: str) -> str:
    """The library's message on a missing configuration, with the name of our option as the remedy."""
    if cause.startswith("Config name is missing"):
        return f"{cause.partition(' Example of usage')[0]}: give dataset_config (generate: --hf-dataset-config)."
    return cause


def _warn_of_ignored_files(folder: Path, used: list[Path]) -> None:
    """Warns of the data files in a folder that belong to no configuration."""
    there = [file for file in sorted(folder.rglob("*")) if file.is_file() and kind_of(file) in BUILDERS]
    hidden = [file for file in there if any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)]
    run = folder / "run"  # what our commands write next to the rows
    ours = list(run.iterdir()) if (run / "environment.json").exists() or (run / "report.json").exists() else []
    ignored = {file.resolve() for file in there} - {file.resolve() for file in [*hidden, *ours, *used]}
    if ignored and get_dataset_config_names(str(_absolute(folder))) == ["default"]:
        names = ", ".join(sorted(str(file.relative_to(folder.resolve())) for file in ignored)[:5])
        warn_user(
            "%s: %d files are ignored, %s: only files of one kind are read from a folder.", folder, len(ignored), names
        )


def _load_mixture(mixture: dict[str, Any]) -> tuple[Dataset, Dataset | None]:
    _check_keys("dataset_mixture", mixture, MIXTURE_KEYS)
    if not isinstance(mixture.get("datasets"), list) or not mixture["datasets"]:
        raise UserError(
            "dataset_mixture: expected `datasets`, a list of mappings with id, config, split, columns and weight."
        )
    seed = mixture.get("seed", 0)
    parts = [_load_part(i, part, seed) for i, part in enumerate(mixture["datasets"])]
    first = parts[0]
    for part in parts[1:]:
        if set(part.column_names) != set(first.column_names):
            raise UserError(
                f"dataset_mixture: {source_name(first)} has the columns {', '.join(first.column_names)}, but "
                f"{source_name(part)} has {', '.join(part.column_names)}: select the same `columns` from each."
            )
    try:
        mixed = concatenate_datasets(parts).shuffle(seed=seed)
    except ValueError as error:
        raise UserError(f"dataset_mixture: the columns have different types: {first_line(error)}") from error
    size = mixture.get("test_split_size")
    if size is None:
        return mixed, None
    try:
        halves = mixed.train_test_split(test_size=size, seed=seed)
    except (ValueError, TypeError) as error:
        raise UserError(f"dataset_mixture: test_split_size is {size!r}: {first_line(error)}") from error
    return halves["train"], halves["test"]


def _load_part(index: int, part: Any, seed: int) -> Dataset:
    where = f"dataset_mixture, datasets[{index}]"
    if not isinstance(part, dict) or "id" not in part:
        raise UserError(f"{where}: expected a mapping with `id`, found {part!r}.")
    _check_keys(where, part, PART_KEYS)
    weight = part.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1:
        raise UserError(f"{where}: weight is {weight!r}: expected the share of rows to keep, above 0 and at most 1.")
    dataset = load_split(
        part["id"], config=part.get("config"), split=part.get("split", "train"), columns=part.get("columns")
    )
    return dataset if weight == 1 else dataset.shuffle(seed=seed).select(range(max(1, round(len(dataset) * weight))))


def _check_keys(where: str, given: dict[str, Any], known: set[str]) -> None:
    for key in given:
        if key not in known:
            hint = did_you_mean(str(key), known, otherwise=f"There are: {', '.join(sorted(known))}.")
            raise UserError(f"{where}: unknown key {key!r}.{hint}")


def _looks_local(path_or_id: str) -> bool:
    known = {*BUILDERS, *REMEDIES}
    return path_or_id.startswith(("/", ".", "~")) or kind_of(Path(path_or_id)) in known or path_or_id.count("/") > 1


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error
