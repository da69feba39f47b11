"""`open-r1 doctor`: one page about this machine, and about running a recipe on it."""

import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from open_r1.errors import UserError
from open_r1.launch.doctor.finding import Finding, can_start
from open_r1.options import parse_known

DESCRIPTION = """Shows what this machine has for training. With --config, also checks the model, tokenizer, data and
rewards of a recipe; options after it override those of the recipe. The exit status is 1 if no run can start
here. A missing GPU, network or login is reported, but is not a failure.

    open-r1 doctor
    open-r1 doctor --config recipes/SmolLM2-135M-Instruct/grpo/config_demo.yaml --dataset_name problems.jsonl
"""
MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "bold red")}


@dataclass
class DoctorOptions:
    """What to check."""

    config: str | None = None
    """A recipe to check too."""
    json: bool = False
    """Print the findings as JSON."""


def main(argv: list[str]) -> None:
    """Prints the page and exits: 0 if a run can start here, 1 if not."""
    (options,), overrides = parse_known(
        argv, DoctorOptions, prog="open-r1 doctor", description=DESCRIPTION, usage="[options of the recipe]"
    )
    if overrides and options.config is None:
        raise UserError(f"{overrides[0]} is an option of a recipe: give --config too.")
    findings = examine(options.config, overrides)
    if options.json:
        print(json.dumps({"can_start": can_start(findings), "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        show(findings)
    sys.exit(0 if can_start(findings) else 1)


def examine(config: str | None, overrides: list[str]) -> list[Finding]:
    """All findings."""
    from open_r1.launch.doctor.gpus import check_gpus
    from open_r1.launch.doctor.hub import check_hub
    from open_r1.launch.doctor.machine import check_machine

    findings = [*check_machine(_folders()), *check_gpus(), *check_hub()]
    if config is not None and can_start(findings):
        from datasets.utils import disable_progress_bars

        from open_r1.launch.doctor.recipe import check_recipe

        disable_progress_bars()
        logging.getLogger("transformers").setLevel(logging.ERROR)
        findings += check_recipe(config, overrides)
    return findings


def show(findings: list[Finding], console: Console | None = None) -> None:
    """A line for each finding, its remedy below it, and a verdict."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark, style = MARKS[finding.state]
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style=style)
        table.add_row(Text(mark, style=style), Text(finding.area, style="bold"), text)
    console = console or Console()
    console.print(table)
    problems = sum(finding.state == "problem" for finding in findings)
    notes = sum(finding.state == "note" for finding in findings)
    verdict = (
        f"\n{problems} problem{'s' * (problems > 1)} to fix before a run can start here."
        if problems
        else "\nA run can start here."
    )
    console.print(
        verdict + (f" Notes to look at: {notes}." if notes else ""), style="bold red" if problems else "bold green"
    )


def _folders() -> dict[str, Path]:
    from datasets import config as datasets_config
    from huggingface_hub import constants

    return {
        "models": Path(constants.HF_HUB_CACHE),
        "datasets": Path(datasets_config.HF_DATASETS_CACHE),
        "runs": Path("runs"),
    }
