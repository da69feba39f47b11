"""What others report for their models: data with sources, shown beside our numbers and never as ours."""

import re
from dataclasses import dataclass

DEEPSEEK = "DeepSeek-R1 report, arXiv 2501.12948, table of distilled models"
OPEN_R1 = "huggingface/open-r1 README, reproduction of DeepSeek's distilled models"
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
    # AIME 2024 pass@1, AIME 2024 cons@64, MATH-500 pass@1, GPQA Diamond pass@1; then open-r1: MATH-500, GPQA Diamond
    "DeepSeek-R1-Distill-Qwen-1.5B": (28.9, 52.7, 83.9, 33.8, 81.2, 33.3),
    "DeepSeek-R1-Distill-Qwen-7B": (55.5, 83.3, 92.8, 49.1, 91.8, 48.4),
    "DeepSeek-R1-Distill-Qwen-14B": (69.7, 80.0, 93.9, 59.1, 94.2, 55.6),
    "DeepSeek-R1-Distill-Qwen-32B": (72.6, 83.3, 94.3, 62.1, 95.0, 58.6),
    "DeepSeek-R1-Distill-Llama-8B": (50.4, 80.0, 89.1, 49.0, 85.4, 51.0),
    "DeepSeek-R1-Distill-Llama-70B": (70.0, 86.7, 94.5, 65.2, 93.4, 65.2),
}
_COLUMNS = (
    ("aime24", "pass@1", "DeepSeek", DEEPSEEK),
    ("aime24", "cons@64", "DeepSeek", DEEPSEEK),
    ("math_500", "pass@1", "DeepSeek", DEEPSEEK),
    ("gpqa:diamond", "pass@1", "DeepSeek", DEEPSEEK),
    ("math_500", "pass@1", "open-r1", OPEN_R1),
    ("gpqa:diamond", "pass@1", "open-r1", OPEN_R1),
)

REPORTED = [
    Reported(model, task, metric, percent, by, source)
    for model, figures in _DISTILLED.items()
    for percent, (task, metric, by, source) in zip(figures, _COLUMNS, strict=True)
] + [Reported("Qwen-2.5-7B-Simple-RL", "math_500", "pass@1", 69.4, "open-r1", SIMPLE_RL)]


def reported_for(model: str, task: str) -> list[Reported]:
    """Published figures of a model on a task; `model` is a hub id or a folder of the same name."""
    name = _folded(model.rstrip("/").rpartition("/")[2])
    return [figure for figure in REPORTED if _folded(figure.model) == name and figure.task == task]


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
