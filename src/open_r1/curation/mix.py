"""`open-r1 data mix`: mixes several datasets into one, as `dataset_mixture` in recipes does.

    open-r1 data mix recipes/my/sft/config_mix.yaml --output data/mix

The file is a recipe with `dataset_mixture`, or has the fields of it:

    datasets:
      - {id: data/verified, columns: [messages], weight: 0.5}
      - {id: open-r1/OpenR1-Math-220k, config: default, split: train, columns: [messages]}
    seed: 42
    test_split_size: 0.01
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from open_r1.configs import DataConfig
from open_r1.curation.rows import DatasetWriter, OutputOptions, Report, check_output, take
from open_r1.data.load import load_train_and_eval
from open_r1.errors import UserError
from open_r1.options import parse_options
from open_r1.options.annotations import Positional
from open_r1.options.values import read_yaml


@dataclass(kw_only=True)
class MixOptions(OutputOptions):
    """Mixture."""

    dataset: Annotated[str, Positional("FILE.yaml")]
    """The declaration."""


def main(argv: list[str] | None = None) -> None:
    """Mixes. Raises UserError."""
    (args,) = parse_options(argv, MixOptions, prog="open-r1 data mix", description=__doc__)
    if not args.dry_run:
        check_output(args.output)
    mixture = read_mixture(Path(args.dataset))
    train, test = load_train_and_eval(
        DataConfig(dataset_mixture=mixture), need_eval=mixture.get("test_split_size") is not None
    )
    report = Report("mix", read=len(train) + len(test or []), kept=len(train) + len(test or []))
    report.figures = {f"part {i + 1}": _described(part) for i, part in enumerate(mixture["datasets"])}
    report.figures |= {"train": len(train)} | ({"test": len(test)} if test else {})
    writer = DatasetWriter(args)
    writer.add(take(train, range(len(train))), "train")
    if test:
        writer.add(take(test, range(len(test))), "test")
    writer.finish(report, what="A mixture of datasets.")


def read_mixture(path: Path) -> dict[str, Any]:
    """The mapping under `dataset_mixture` in a YAML file, or all of it. Raises `UserError`."""
    content = {name: given.value for name, given in read_yaml(path).items()}
    mixture = content.get("dataset_mixture", content)
    if not isinstance(mixture, dict) or "datasets" not in mixture:
        raise UserError(
            f"{path}: expected `dataset_mixture`, or a list `datasets` with id, config, split, columns and weight."
        )
    return mixture


def _described(part: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in part.items())
