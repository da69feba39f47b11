"""The page of a training run: live (`open-r1 watch`), or saved as one file (`open-r1 report`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1.files import write_text
from open_r1.report.page import packed, render_page
from open_r1.report.run_data import RunPages

SCRIPTS = ("charts.js", "source.js", "overview.js", "rollouts.js", "run.js")


@dataclass(frozen=True)
class SavedRun:
    """The path of the page, the number of steps whose rollouts it has, and the steps whose file cannot be read."""

    path: Path
    megabytes: float
    carried: int
    steps: int
    damaged: list[int]


def live_page(pages: RunPages) -> str:
    """The live page, which gets its data from its server."""
    title = ", ".join(run.folder.resolve().name for run in pages.runs)
    return render_page("run.html", scripts=SCRIPTS, styles=["run.css"], live=True, title=title, data=_data(pages, None))


def write_run_page(folder: Path, path: Path, max_megabytes: float) -> SavedRun:
    """Writes the page of a run. It has the rollouts of as many steps as fit, spread evenly. Raises UserError."""
    pages = RunPages([folder])
    figures = pages.get("figures/0/0/0")
    pieces = {"figures/0/0/0": packed(figures), "problems/0": packed(pages.get("problems/0"))}
    carried: list[int] = []
    damaged: list[int] = []
    room = max_megabytes * 1e6 - sum(map(len, pieces.values()))
    for step in spread(figures["steps"]):
        try:
            fresh = _rollouts(pages, step)
        except (LookupError, ValueError):
            damaged.append(step)
            continue
        room -= sum(map(len, fresh.values()))
        if room < 0:
            break
        pieces |= fresh
        carried.append(step)
    html = render_page(
        "run.html",
        scripts=SCRIPTS,
        styles=["run.css"],
        pieces=pieces,
        title=figures["name"],
        data=_data(pages, sorted(carried)),
    )
    write_text(path, html)
    return SavedRun(path, path.stat().st_size / 1e6, len(carried), len(figures["steps"]), sorted(damaged))


def _rollouts(pages: RunPages, step: int) -> dict[str, str]:
    found = {f"rollouts/0/{step}": pages.get(f"rollouts/0/{step}")}
    for group in found[f"rollouts/0/{step}"]["groups"]:
        name = f"texts/0/{step}/{group['start']}/{group['end']}"
        found[name] = pages.get(name)
    return {name: packed(value) for name, value in found.items()}


def spread(steps: Sequence[int]) -> Iterator[int]:
    """All of `steps`, so that the first few are spread over the whole: the last, the first, the middle, and so on."""
    if not steps:
        return
    seen = {len(steps) - 1, 0}
    yield steps[-1]
    if len(steps) > 1:
        yield steps[0]
    gaps = [(0, len(steps) - 1)]
    while gaps:
        low, high = gaps.pop(0)
        middle = (low + high) // 2
        if middle not in seen:
            seen.add(middle)
            yield steps[middle]
            gaps += [(low, middle), (middle, high)]


def _data(pages: RunPages, carried: list[int] | None) -> dict:
    return {"runs": len(pages.runs), "live": carried is None, "carried": carried}
