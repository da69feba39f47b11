"""Open R1: the DeepSeek-R1 recipe, open, complete and fast.

    from open_r1 import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer, grade, load_engine

Names are imported when they are first used: `import open_r1` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from open_r1.configs import GRPOConfig, ModelConfig, SFTConfig
    from open_r1.engine.load import load_engine
    from open_r1.errors import Interrupted, UserError
    from open_r1.rewards.grader import grade
    from open_r1.run.trainers import GRPOTrainer, SFTTrainer

__all__ = [
    "GRPOConfig",
    "GRPOTrainer",
    "Interrupted",
    "ModelConfig",
    "SFTConfig",
    "SFTTrainer",
    "UserError",
    "grade",
    "load_engine",
]

_MODULES = {
    "GRPOConfig": "configs",
    "GRPOTrainer": "run.trainers",
    "Interrupted": "errors",
    "ModelConfig": "configs",
    "SFTConfig": "configs",
    "SFTTrainer": "run.trainers",
    "UserError": "errors",
    "grade": "rewards.grader",
    "load_engine": "engine.load",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("open-r1")
    except metadata.PackageNotFoundError:  # the sources are used without an installation
        return "unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
