"""A drawing of the plan: three ways to train the base model."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Stage:
    """A model in the plan: its name, color and explanation, and the steps that lead to it."""

    title: str
    color: str
    meaning: str
    steps: tuple[str, ...]


STAGES = {
    "base": Stage("Base", "#7a8290", "pre-trained only; the other three start from it", ()),
    "distil": Stage("Distill", "#b8690c", "fine-tuned on the base's own verified answers", ("SFT",)),
    "zero": Stage("R1-Zero", "#2f6fe0", "rewarded for right answers, no examples", ("GRPO",)),
    "multi_stage": Stage("Multi-stage", "#cf3a85", "first fine-tuned, then rewarded", ("SFT", "GRPO")),
}

WIDTH, HEIGHT = 470, 206
BOX = 108
_INK, _MUTED, _CARD = "var(--ink, #6b7280)", "var(--muted, #7a8290)", "var(--card, none)"


def draw_plan(accuracy: Mapping[str, float] | None = None) -> str:
    """An `<svg>` of the plan, with each model's accuracy (a share of 1) where it is known."""
    known = accuracy or {}
    trained = [name for name in STAGES if name != "base"]
    lanes = {name: 34 + 69 * index for index, name in enumerate(trained)}
    parts = [_model("base", 4, lanes["zero"], known)]
    for name, y in lanes.items():
        parts.append(_lane(name, y, lanes["zero"]))
        parts.append(_model(name, WIDTH - BOX - 4, y, known))
    said = "; ".join(f"{STAGES[name].title}: {' then '.join(STAGES[name].steps)}" for name in trained)
    return (
        f'<svg class="plan" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg" '
        'font-family="system-ui, sans-serif" font-size="14"><title>The plan: three ways from the base '
        f"model</title><desc>{escape(said)}</desc>{''.join(parts)}</svg>"
    )


def _model(name: str, x: int, y: int, known: Mapping[str, float]) -> str:
    stage, middle = STAGES[name], x + BOX // 2
    score = f"{known[name]:.0%} right" if name in known else ""
    up = 8 if score else -1
    return (
        f'<rect x="{x}" y="{y - 27}" width="{BOX}" height="54" rx="10" fill="{_CARD}" stroke="{stage.color}" '
        f'stroke-width="2"/><text x="{middle}" y="{y - up + 4}" text-anchor="middle" font-weight="600" '
        f'fill="{_INK}">{stage.title}</text>'
        f'<text x="{middle}" y="{y + 16}" text-anchor="middle" font-size="13" fill="{_MUTED}">{score}</text>'
    )


def _lane(name: str, y: int, from_y: int) -> str:
    stage = STAGES[name]
    start, end = BOX + 4, WIDTH - BOX - 4
    path = f"M{start} {from_y} C{start + 30} {from_y} {start + 8} {y} {start + 40} {y} H{end - 9}"
    parts = [
        f'<path d="{path}" fill="none" stroke="{stage.color}" stroke-width="2"/>',
        f'<path d="M{end - 2} {y} l-10 -5 v10 z" fill="{stage.color}"/>',
    ]
    places = {1: [246], 2: [200, 292]}[len(stage.steps)]
    for step, x in zip(stage.steps, places, strict=True):
        parts.append(
            f'<rect x="{x - 36}" y="{y - 15}" width="72" height="30" rx="15" fill="{stage.color}"/>'
            f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-weight="600" fill="#fff">{step}</text>'
        )
    return "".join(parts)
