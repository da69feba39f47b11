"""Where the demo finds its recipes, and how it writes its small files."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "recipes"
"""The same files as `recipes/demo` of the repository, to which this is a link."""


def recipe(name: str) -> str:
    """Path of one of the demo's recipes."""
    return str(RECIPES / f"{name}.yaml")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes a data set, one JSON object a line; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
