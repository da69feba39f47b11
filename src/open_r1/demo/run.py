"""R1's whole plan on a laptop: a tiny model learns on a CPU that thinking pays off.

The demo evaluates a base model that only sometimes adds step by step. Then it trains the model in three ways:
fine-tuning on its own verified answers (distil), reinforcement learning with a reward for right answers (zero), and
both in turn (multi_stage). The code is the same as for large models. The demo ends with a table, results.json and
report.html.

    open-r1 demo
    open-r1 demo --task code --output runs/demo-code
    open-r1 demo --fast --output runs/demo-fast
    open-r1 demo --from-scratch --seed 1 --output runs/demo-1

To continue an interrupted demo after its last finished stage, run the same command again.
"""

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.table import Table

from open_r1.demo.files import read_json
from open_r1.errors import Interrupted, UserError
from open_r1.files import write_json
from open_r1.options import parse_options
from open_r1.options.annotations import Range
from open_r1.progress_bars import hide_library_bars


@dataclass(frozen=True)
class Output:
    """Output."""

    output: Path = Path("runs/demo")
    """Folder of the demo."""


@dataclass(frozen=True)
class Settings:
    """Settings of the demo. Each folder belongs to one set of settings."""

    task: Literal["sums", "code"] = "sums"
    """What the model learns: to add numbers, or to write tiny programs that pass hidden tests."""
    seed: Annotated[int, Range(at_least=0, below=2**32)] = 0
    """Random seed for training and sampling. The held-out problems are always the same."""
    fast: bool = False
    """Finish in under 90 seconds, with smaller gains."""
    from_scratch: bool = False
    """Also train the base model, which takes minutes."""

    def flags(self) -> str:
        """The settings as command-line options."""
        return (
            (f" --task {self.task}" if self.task != "sums" else "")
            + (f" --seed {self.seed}" if self.seed else "")
            + (" --fast" if self.fast else "")
            + (" --from-scratch" if self.from_scratch else "")
        )


def main(argv: list[str] | None = None) -> None:
    """Runs the demo with the options in `argv` (default: the command line). Exits with 75 or 130 if interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    output, settings = parse_options(argv, Output, Settings, prog="open-r1 demo", description=__doc__ or "")
    output = output.output
    claim_folder(output, settings)
    try:
        run(output, settings, Console())
    except (KeyboardInterrupt, Interrupted) as stop:
        command = f"open-r1 demo --output {shlex.quote(str(output))}{settings.flags()}"
        print(f"\nInterrupted: `{command}` continues after the last finished stage.", file=sys.stderr)
        sys.exit(Interrupted.EXIT_CODE if isinstance(stop, Interrupted) else 130)


def run(output: Path, settings: Settings, console: Console) -> dict[str, Any]:
    """Runs the unfinished stages, writes and shows the results, and returns the contents of `results.json`."""
    _quiet_libraries()
    from open_r1.demo.stages import FAST, FULL, STAGES, TASKS, Demo

    demo = Demo(
        task=TASKS[settings.task],
        output=output,
        seed=settings.seed,
        sizes=FAST if settings.fast else FULL,
        from_scratch=settings.from_scratch,
        sampling=_sampling_display(console),
    )
    results = []
    for number, (name, train) in enumerate(STAGES.items(), start=1):
        console.rule(f"[bold]{number}/{len(STAGES)} {name}", align="left")
        done = output / name / "done.json"
        if done.exists():
            results.append(read_json(done))
            console.print("already finished")
        else:
            start = time.perf_counter()
            shutil.rmtree(output / name, ignore_errors=True)
            train(demo)
            score = demo.score(name)
            results.append({"name": name, **asdict(score), "seconds": round(time.perf_counter() - start, 1)})
            done.parent.mkdir(parents=True, exist_ok=True)
            write_json(done, results[-1])
        console.print(
            f"{name}: {results[-1]['accuracy']:.1%} right, {results[-1]['mean_tokens']:.1f} tokens per answer",
            highlight=False,
        )
    summary = {"task": settings.task, "stages": results, "seconds": round(sum(r["seconds"] for r in results), 1)}
    write_json(output / "results.json", summary)
    console.print()
    console.print(results_table(summary))
    from open_r1.report.demo_page import write_demo_report

    console.print(f"Report: {write_demo_report(output)}", soft_wrap=True, highlight=False)
    return summary


def claim_folder(output: Path, settings: Settings) -> None:
    """Marks `output` as the folder of a demo with `settings`.

    Raises `UserError` if it holds a demo with other settings, or anything else.
    """
    claim = output / "demo.json"
    if claim.exists():
        try:
            claimed = Settings(**read_json(claim))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{claim} is damaged ({error}): delete {output} or give a new folder with --output."
            ) from error
        for name, earlier in asdict(claimed).items():
            if (now := getattr(settings, name)) != earlier:
                raise UserError(
                    f"output is {output}, which has a demo with {name} {_shown(earlier)}, but {name} is now "
                    f"{_shown(now)}: give another folder with --output, or delete this one."
                )
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"output is {output}, which has other content: give a new folder with --output.")
    else:
        output.mkdir(parents=True, exist_ok=True)
        write_json(claim, asdict(settings))


def results_table(summary: dict[str, Any]) -> Table:
    """The table of results for the terminal."""
    table = Table("stage", title="The same held-out problems, answered by each model", title_justify="left")
    for column in ("right", "95% interval", "tokens", "seconds"):
        table.add_column(column, justify="right")
    for stage in summary["stages"]:
        low, high = stage["ci95"]
        table.add_row(
            stage["name"],
            f"{stage['accuracy']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{stage['mean_tokens']:.1f}",
            f"{stage['seconds']:.0f}",
        )
    table.caption = f"{summary['stages'][0]['n']} problems at temperature 1, in {summary['seconds']:.0f} s"
    return table


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _sampling_display(console: Console) -> Callable[[str], Any]:
    """A context manager that counts sampled tokens on the terminal."""

    @contextmanager
    def display(message: str) -> Iterator[Callable[[int], None]]:
        total = 0
        with console.status(message) as status:

            def on_tokens(count: int) -> None:
                nonlocal total
                total += count
                status.update(f"{message}, {total:,} tokens so far")

            yield on_tokens

    return display


def _quiet_libraries() -> None:
    """Hides the libraries' progress bars and uses one core.

    For such a small model, a second thread saves little time on idle cores and costs several times as much on busy
    ones, where threads wait for each other after every small operation.
    """
    import torch

    hide_library_bars()
    torch.set_num_threads(1)
