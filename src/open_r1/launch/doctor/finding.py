"""One finding of the doctor."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]
"""A `note` may slow down a run or rule out some kinds of runs. With a `problem`, no run can start here."""


@dataclass(frozen=True)
class Finding:
    """One line of the page."""

    area: str
    state: State
    text: str
    remedy: str = ""


def can_start(findings: list[Finding]) -> bool:
    """Whether a run can start on this machine."""
    return all(finding.state != "problem" for finding in findings)


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / 2**30:,.1f} GiB" if size < 100 * 2**30 else f"{size / 2**30:,.0f} GiB"
