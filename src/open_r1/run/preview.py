"""Shows the first rows as the model sees them: rendered, with special tokens, and with the learned part marked."""

from itertools import groupby
from operator import itemgetter
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

ROWS = 2
LONGEST = 1200
"""Length of the longest text that is shown in full. Of longer texts, both ends are shown."""
OPEN, CLOSE = "⟦", "⟧"
"""Marks around the learned text on consoles without colors."""


def show_rows(rows: Dataset, tokenizer: PreTrainedTokenizerBase, console: Console) -> None:
    """Prints the first rows of tokenized traces (`input_ids`, `loss_mask`): the learned part in color, or between
    marks on a console without colors."""
    colored = console.is_terminal and not console.no_color
    console.print(Text(f"First rows; what is learned is {'green' if colored else f'between {OPEN} and {CLOSE}'}:"))
    for row in rows.select(range(min(ROWS, len(rows)))):
        if colored:
            console.print(Text(_counts(row), style="bold"))
            console.print(Text.assemble(*[(text, "green" if learn else "") for text, learn in _parts(row, tokenizer)]))
        else:
            console.print(Text(marked_row(row, tokenizer)), soft_wrap=True)


def marked_row(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """The token counts of a row and its text, with the learned part between `OPEN` and `CLOSE`."""
    texts = [f"{OPEN}{text}{CLOSE}" if learn else text for text, learn in _parts(row, tokenizer)]
    return f"{_counts(row)}\n{''.join(texts)}"


def show_prompts(prompts: Dataset, console: Console) -> None:
    """Prints the first prompts as the chat template renders them."""
    console.print(Text("First prompts, which the model continues:"))
    for row in prompts.select(range(min(ROWS, len(prompts)))):
        console.print(Text(prompt_row(row)), soft_wrap=True)


def prompt_row(row: dict[str, Any]) -> str:
    """The count of a prompt's tokens, and its text."""
    return f"{len(row['prompt_ids']):,} tokens\n{_short(row['prompt_text'])}"


def _counts(row: dict[str, Any]) -> str:
    learned = sum(row["loss_mask"])
    return f"{learned:,} tokens learned, {len(row['loss_mask']) - learned:,} not"


def _parts(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, bool]]:
    tokens = zip(row["input_ids"], row["loss_mask"], strict=True)
    runs = [([token for token, _ in run], bool(learn)) for learn, run in groupby(tokens, itemgetter(1))]
    return [(_short(str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))), learn) for ids, learn in runs]


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} [... {len(text) - LONGEST:,} characters ...] {text[-half:]}"
