"""`open-r1 compare A B`: compares two evaluations of the same problems, and lists the problems that differ.

    open-r1 compare runs/base/evaluation runs/grpo/evaluation
    open-r1 compare runs/base/evaluation runs/grpo/evaluation --html difference.html

Problems are paired, so what makes a problem hard for both models cancels out. The interval of the difference is
therefore much narrower than those of the two scores suggest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

from open_r1.errors import UserError
from open_r1.evaluation.metrics import Estimate, paired_difference, pass_at_1
from open_r1.evaluation.results import by_problem
from open_r1.evaluation.store import finished_folders, read_samples
from open_r1.files import explain_output
from open_r1.options import parse_options
from open_r1.options.annotations import Positional
from open_r1.report.compare_page import ComparedTask, write_compare_page
from open_r1.report.evaluation_page import COLUMNS as PAGE_COLUMNS

COLUMNS = ["index", "id", "prompt", "sample", "correct"]


@dataclass(frozen=True)
class Change:
    """A problem and its pass rates in A and in B."""

    id: str
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """Pass@1 of both on the same problems; `difference` is B - A with its paired interval."""

    task: str
    a: float
    b: float
    difference: Estimate
    n_problems: int
    changes: list[Change]
    """Problems whose rates differ, those that B lost most first."""


def compare_folders(task: str, a: Path, b: Path) -> Comparison:
    """Compares two folders of one task. Raises `UserError` unless both have the same problems."""
    rates_a, rates_b = _rates(a), _rates(b)
    if rates_a.keys() != rates_b.keys():
        only = sorted(id for id, _ in rates_a.keys() ^ rates_b.keys())
        raise UserError(
            f"{a} and {b} have different problems: {len(only)} ids or prompts differ, the first is {only[0]!r}. "
            "Evaluate both on the same data with the same --limit."
        )
    keys = list(rates_a)
    first, second = [rates_a[key] for key in keys], [rates_b[key] for key in keys]
    changes = [Change(key[0], rates_a[key], rates_b[key]) for key in keys if rates_a[key] != rates_b[key]]
    return Comparison(
        task=task,
        a=sum(first) / len(keys),
        b=sum(second) / len(keys),
        difference=paired_difference(first, second),
        n_problems=len(keys),
        changes=sorted(changes, key=lambda change: change.b - change.a),
    )


def compare(a: Path, b: Path) -> list[Comparison]:
    """Compares every task that both have. Raises `UserError` if there is none."""
    folders_a, folders_b = _by_task(a), _by_task(b)
    both = [task for task in folders_a if task in folders_b]
    if not both:
        raise UserError(f"{a} has {', '.join(folders_a)} and {b} has {', '.join(folders_b)}: no task in common.")
    return [compare_folders(task, folders_a[task], folders_b[task]) for task in both]


@dataclass(kw_only=True)
class CompareOptions:
    """Two evaluations."""

    a: Annotated[Path, Positional("A")]
    """Folder of the first evaluation."""
    b: Annotated[Path, Positional("B")]
    """Folder of the second evaluation."""
    all: bool = False
    """List all problems that differ, not only the first 20."""
    html: Path | None = None
    """Also write a page with the answers of both models side by side."""


def main(argv: list[str] | None = None) -> None:
    """Prints the comparison. Raises `UserError` for mistakes that the user can fix."""
    (args,) = parse_options(argv, CompareOptions, prog="open-r1 compare", description=__doc__)
    comparisons = compare(args.a, args.b)
    console = Console()
    console.print(f"A  {args.a}\nB  {args.b}", soft_wrap=True, highlight=False, markup=False)
    console.print(comparison_table(comparisons))
    for comparison in comparisons:
        _print_changes(console, comparison, None if args.all else 20)
    if args.html is not None:
        console.print(f"\n{write_page(args.a, args.b, comparisons, args.html)}", soft_wrap=True, highlight=False)


def write_page(a: Path, b: Path, comparisons: Sequence[Comparison], path: Path) -> Path:
    """Writes the page of the comparison of two folders. Raises `UserError`."""
    folders_a, folders_b = _by_task(a), _by_task(b)
    tasks = []
    for c in comparisons:
        columns = [*PAGE_COLUMNS, "prompt"]
        pairs_a, pairs_b = (
            {(samples[0]["id"], samples[0]["prompt"]): samples for samples in by_problem(read_samples(folder, columns))}
            for folder in (folders_a[c.task], folders_b[c.task])
        )
        pairs = [(pairs_a[key], pairs_b[key]) for key in pairs_a]
        tasks.append(ComparedTask(c.task, c.a, c.b, c.difference.value, c.difference.ci95, pairs))
    names = _name(a), _name(b)
    with explain_output(path, "--html"):
        return write_compare_page(path, names if names[0] != names[1] else (str(a), str(b)), tasks)


def _name(folder: Path) -> str:
    folder = folder.resolve()
    return folder.parent.name if folder.name == "evaluation" else folder.name


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """One line per task, the difference in points of pass@1."""
    table = Table(show_edge=False, pad_edge=False)
    for name in ("task", "problems", "A", "B", "B - A (95% interval, paired)"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for c in comparisons:
        low, high = c.difference.ci95
        difference = f"{c.difference.value * 100:+.1f} points ({low * 100:+.1f} to {high * 100:+.1f})"
        table.add_row(c.task, f"{c.n_problems:,}", f"{c.a:.1%}", f"{c.b:.1%}", difference)
    return table


def _print_changes(console: Console, comparison: Comparison, most: int | None) -> None:
    if not comparison.changes:
        console.print(f"{comparison.task}: no problem differs.", highlight=False)
        return
    worse = [c for c in comparison.changes if c.b < c.a]
    better = [c for c in reversed(comparison.changes) if c.b > c.a]
    for title, changes in (("better in B", better), ("better in A", worse)):
        console.print(
            f"\n{comparison.task}: {len(changes)} problem{'' if len(changes) == 1 else 's'} {title}", highlight=False
        )
        for change in changes[:most]:
            console.print(f"  {change.id}  {change.a:.0%} to {change.b:.0%}", highlight=False, markup=False)
        if most is not None and len(changes) > most:
            console.print(f"  and {len(changes) - most} more (--all)", highlight=False)


def _rates(folder: Path) -> dict[tuple[str, str], float]:
    problems = by_problem(read_samples(folder, COLUMNS))
    rates = pass_at_1([[row["correct"] is True for row in samples] for samples in problems])
    return {(samples[0]["id"], samples[0]["prompt"]): rate for samples, rate in zip(problems, rates, strict=True)}


def _by_task(root: Path) -> dict[str, Path]:
    return {folder.name: folder for folder in finished_folders(root)}
