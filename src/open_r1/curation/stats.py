"""`open-r1 data stats`: the lengths of rows in tokens, with a histogram.

    open-r1 data stats data/verified --tokenizer Qwen/Qwen2.5-1.5B-Instruct
    open-r1 data stats data/verified --tokenizer M --column messages --output runs/stats

Conversations are counted as the chat template renders them, because `max_length` limits that length.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from datasets import Dataset
from rich import box
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from open_r1.curation.rows import READ, SourceOptions, check_output
from open_r1.data.chat import prepare_tokenizer
from open_r1.data.columns import context_columns, require_path
from open_r1.data.conversations import ConversationRenderer, is_conversation, read_conversation, warn_of_losses
from open_r1.data.load import load_split, source_name
from open_r1.data.messages import check_messages
from open_r1.data.paths import column_of, values_at
from open_r1.errors import UserError
from open_r1.files import write_json
from open_r1.options import parse_options
from open_r1.options.annotations import Repeated
from open_r1.options.columns import ConversationColumns
from open_r1.progress_bars import hide_library_bars
from open_r1.report.histogram import histogram
from open_r1.report.svg import as_file

COUNTED = ("problem", "prompt", "solution", "completion", "messages", "conversations", "text")
PERCENTILES = (5, 50, 95, 99)


@dataclass(kw_only=True)
class StatsOptions(ConversationColumns, SourceOptions):
    """Tokens."""

    tokenizer: str
    """Hub id or local folder."""
    column: Annotated[list[str] | None, Repeated()] = None
    """Column to count; repeat it for several columns. Default: all columns with text."""
    output: Path | None = None
    """Folder for stats.json and <column>.svg."""
    dry_run: bool = False
    """Write nothing."""


def main(argv: list[str] | None = None) -> None:
    """Counts. Raises UserError."""
    (args,) = parse_options(argv, StatsOptions, prog="open-r1 data stats", description=__doc__)
    hide_library_bars()
    output = None if args.dry_run else args.output
    if output is not None:
        check_output(output)
    dataset = load_split(args.dataset, config=args.dataset_config, split=args.split)
    columns = args.column or [name for name in COUNTED if name in dataset.column_names]
    if args.messages_column is not None and args.messages_column not in columns:
        columns = [*columns, args.messages_column]
    if not columns:
        there = ", ".join(dataset.column_names)
        raise UserError(
            f"{source_name(dataset)}: no column is named {', '.join(COUNTED)}: give --column. The columns are: {there}."
        )
    for name in columns:
        require_path(dataset, name, remedy="Select another one: --column NAME (NAME.FIELD for a field).")
    tokenizer = prepare_tokenizer(args.tokenizer, option="--tokenizer")
    lengths = {name: token_lengths(dataset, name, tokenizer, args) for name in columns}
    figures = {name: statistics(values) for name, values in lengths.items()}
    Console().print(_table(figures))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "stats.json", {"rows": len(dataset), "tokenizer": args.tokenizer, "tokens": figures})
        for name, values in lengths.items():
            marks = {key: figures[name][key] for key in ("p50", "p95")}
            picture = histogram(values, title=f"Tokens of {name}, {len(values):,} rows", x_label="tokens", marks=marks)
            (output / f"{name}.svg").write_text(as_file(picture), encoding="utf-8")
        print(f"{output} has stats.json and {', '.join(f'{name}.svg' for name in lengths)}.")


def token_lengths(
    dataset: Dataset, column: str, tokenizer: PreTrainedTokenizerBase, names: ConversationColumns | None = None
) -> list[int]:
    """Tokens of each row's cell. Text is counted as it is, conversations as the chat template renders them, with the
    context columns in `names`."""
    context = context_columns(dataset, names or ConversationColumns(), exclude=[column])
    kept = dict.fromkeys(column_of(dataset, path) for path in (column, *context.paths))
    rows, renderer, lost = dataset.select_columns(list(kept)), ConversationRenderer(tokenizer), Counter[str]()
    tokenize: Callable[..., Any] = tokenizer
    lengths: list[int] = []
    for start in range(0, len(rows), READ):
        batch = rows[start : start + READ]
        values = values_at(batch, column)
        texts = []
        for i, value in enumerate(values):
            if not is_conversation(value):
                texts.append("" if value is None else str(value))
                continue
            row, where = {name: batch[name][i] for name in batch}, f"row {start + i + 1}"
            conversation = read_conversation(check_messages(value, where), row, context, None, where)
            text, notes = renderer.text(conversation, where, add_generation_prompt=False)
            texts.append(text)
            lost.update(notes)
        lengths += map(len, tokenize(texts, add_special_tokens=False, verbose=False)["input_ids"])
    warn_of_losses(source_name(dataset), lost, len(rows))
    return lengths


def statistics(lengths: list[int]) -> dict[str, float]:
    """Mean, extremes, percentiles and sum."""
    figures: dict[str, float] = {"mean": round(float(np.mean(lengths)), 1), "min": min(lengths)}
    figures |= {f"p{p}": round(float(np.percentile(lengths, p)), 1) for p in PERCENTILES}
    return figures | {"max": max(lengths), "total": sum(lengths)}


def _table(figures: dict[str, dict[str, float]]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("tokens", no_wrap=True, min_width=10)
    shown = [name for name in next(iter(figures.values())) if name != "total"]
    for name in shown:
        table.add_column(name, justify="right")
    for column, values in figures.items():
        table.add_row(column, *(f"{values[name]:,.0f}" for name in shown))
    return table
