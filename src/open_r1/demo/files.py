"""The demo's recipes as command lines, and helpers for its JSON files."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "recipes"
"""A link to `recipes/demo` of the repository."""


def recipe_argv(name: str, *, model: Path, data: Path, output: Path, seed: int) -> list[str]:
    """The command line of one of the demo's recipes, for its entry point."""
    options = {
        "config": RECIPES / f"{name}.yaml",
        "model_name_or_path": model,
        "dataset_name": data,
        "output_dir": output,
        "seed": seed,
    }
    return [word for option, value in options.items() for word in (f"--{option}", str(value))]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes a dataset, one JSON object per line; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
