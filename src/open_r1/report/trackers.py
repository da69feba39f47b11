"""Trackers by the names of `report_to`, and the packages that they need."""

from collections.abc import Iterable

from transformers.integrations import get_available_reporting_integrations

from open_r1.errors import did_you_mean
from open_r1.installing import install_command

PACKAGES = {
    "azure_ml": "pip install azureml-core",
    "clearml": "pip install clearml",
    "codecarbon": "pip install codecarbon",
    "comet_ml": "pip install comet-ml",
    "dagshub": "pip install dagshub mlflow",
    "dvclive": "pip install dvclive",
    "flyte": "pip install flytekit",
    "mlflow": "pip install mlflow",
    "neptune": "pip install neptune",
    "swanlab": "pip install swanlab",
    "tensorboard": "pip install tensorboard",
}
EXTRA = ("trackio", "wandb")
"""Trackers of the extra `tracking`."""


def tracker_problem(report_to: Iterable[str] | None) -> str | None:
    """One sentence about the first tracker that is unknown or not installed; None if all are installed."""
    available = get_available_reporting_integrations()
    for name in report_to or []:
        if name in ("none", "all") or name in available:
            continue
        if name in PACKAGES or name in EXTRA:
            command = PACKAGES.get(name) or install_command("tracking")
            return f"report_to is {name}, which is not installed: {command}, or report_to none."
        known = sorted({*PACKAGES, *EXTRA})
        hint = did_you_mean(name, known, otherwise=f"Expected none, all, or some of {', '.join(known)}.")
        return f"report_to is {name!r}, which is not a known tracker:{hint}"
    return None
