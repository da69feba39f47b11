"""Scores that others report for their models, with sources. They are shown next to our scores, never as ours."""

import re
from dataclasses import dataclass

DEEPSEEK = "DeepSeek-R1 report, arXiv 2501.12948, table of distilled models"
OPEN_R1 = "huggingface/open-r1 README at 0e06249 (July 2025), reproduction of DeepSeek's distilled models"
OPENR1_DISTILL = "huggingface/open-r1 README at 0e06249 (July 2025), OpenR1-Distill-7B (LiveCodeBench v5)"
SIMPLE_RL = "huggingface/open-r1, SimpleRL recipe on Qwen2.5-Math-7B"


@dataclass(frozen=True)
class Reported:
    """A published figure: percent, as printed there."""

    model: str
    task: str
    metric: str
    percent: float
    by: str
    source: str


_DISTILLED = {
    # by DeepSeek: AIME 2024 pass@1 and cons@64, then pass@1 on MATH-500, GPQA Diamond and LiveCodeBench;
    # by open-r1: pass@1 on AIME 2024, MATH-500, GPQA Diamond and LiveCodeBench
    "DeepSeek-R1-Distill-Qwen-1.5B": (28.9, 52.7, 83.9, 33.8, 16.9, 30.7, 83.1, 35.8, 16.1),
    "DeepSeek-R1-Distill-Qwen-7B": (55.5, 83.3, 92.8, 49.1, 37.6, 50.8, 94.5, 50.5, 37.4),
    "DeepSeek-R1-Distill-Qwen-14B": (69.7, 80.0, 93.9, 59.1, 53.1, 65.9, 94.1, 61.5, 51.3),
    "DeepSeek-R1-Distill-Qwen-32B": (72.6, 83.3, 94.3, 62.1, 57.2, 69.7, 95.6, 63.1, 56.0),
    "DeepSeek-R1-Distill-Llama-8B": (50.4, 80.0, 89.1, 49.0, 39.6, 43.9, 88.6, 46.7, 37.4),
    "DeepSeek-R1-Distill-Llama-70B": (70.0, 86.7, 94.5, 65.2, 57.5, 63.0, 95.1, 67.4, 55.9),
}
_COLUMNS = (
    ("aime24", "pass@1", "DeepSeek", DEEPSEEK),
    ("aime24", "cons@64", "DeepSeek", DEEPSEEK),
    *((task, "pass@1", "DeepSeek", DEEPSEEK) for task in ("math_500", "gpqa:diamond", "lcb")),
    *((task, "pass@1", "open-r1", OPEN_R1) for task in ("aime24", "math_500", "gpqa:diamond", "lcb")),
)
_OPENR1_DISTILL = {"aime24": 52.7, "math_500": 89.0, "gpqa:diamond": 52.8, "lcb": 39.4}

REPORTED = [
    Reported(model, task, metric, percent, by, source)
    for model, figures in _DISTILLED.items()
    for percent, (task, metric, by, source) in zip(figures, _COLUMNS, strict=True)
]
REPORTED += [
    Reported("OpenR1-Distill-7B", task, "pass@1", percent, "open-r1", OPENR1_DISTILL)
    for task, percent in _OPENR1_DISTILL.items()
]
REPORTED.append(Reported("Qwen-2.5-7B-Simple-RL", "math_500", "pass@1", 69.4, "open-r1", SIMPLE_RL))


def reported_for(model: str, task: str) -> list[Reported]:
    """Published figures of a model on a task; `model` is a hub id or a folder of the same name."""
    name = _folded(model.rstrip("/").rpartition("/")[2])
    return [figure for figure in REPORTED if _folded(figure.model) == name and figure.task == task]


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
