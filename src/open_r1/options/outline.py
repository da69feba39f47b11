"""Reads the fields of a dataclass from its source, without importing it.

`transformers.TrainingArguments` takes seconds to import, because it imports torch. Neither `--help` nor a mistyped
option should wait for that. An outline has only the names, types, defaults and docstrings of the fields.
"""

import ast
import builtins
import functools
import importlib
import importlib.util
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

SLOW = ("accelerate", "torch", "transformers")
"""Packages that are read but never imported."""
UNKNOWN = ...
"""Stands for a default that cannot be computed without an import."""
SOURCES: dict[type, str] = {}
"""The source of each outline."""


@functools.cache
def outline(module: str, name: str) -> type:
    """A dataclass with the fields of `module.name`. Raises `LookupError` if its source cannot be found."""
    node = _definitions(module).get(name)
    if not isinstance(node, ast.ClassDef):
        raise LookupError(f"{module} defines no class {name}")
    bases = {f"base_{i}": _base(module, base) for i, base in enumerate(node.bases)}
    body: list[ast.stmt] = [_with_help_only(n) for n in node.body if isinstance(n, ast.AnnAssign)]
    used = {n.id for field in body for n in ast.walk(field) if isinstance(n, ast.Name)}
    scope = {n: _value(module, n) for n in used if not hasattr(builtins, n)} | bases | {"__name__": module}
    names: list[ast.expr] = [ast.Name(base, ast.Load()) for base in bases]
    bare = ast.ClassDef(name, bases=names, keywords=[], body=body or [ast.Pass()], decorator_list=[])
    exec(compile(ast.fix_missing_locations(ast.Module([bare], [])), str(_path(module)), "exec"), scope)
    scope[name].__doc__ = ast.get_docstring(node)
    found: type = dataclass(kw_only=True)(scope[name])
    lines = _path(module).read_text(encoding="utf-8").splitlines()
    SOURCES[found] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
    return found


@functools.cache
def _definitions(module: str) -> dict[str, ast.ClassDef | str]:
    """The classes that a module defines, and the module that each imported name comes from."""
    found: dict[str, ast.ClassDef | str] = {}
    for node in ast.walk(ast.parse(_path(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            where = importlib.util.resolve_name(relative, module.rpartition(".")[0])
            found |= {alias.name: where for alias in node.names}
    return found


@functools.cache
def _path(module: str) -> Path:
    """The file of a module, found without importing its parent packages."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"there is no package {package}")
    path = Path(spec.submodule_search_locations[0], *rest)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        raise LookupError(f"there is no {path}")
    return path


def _with_help_only(statement: ast.AnnAssign) -> ast.AnnAssign:
    """`field(default=..., metadata={"help": ...})`, without other metadata."""
    for keyword in statement.value.keywords if isinstance(statement.value, ast.Call) else ():
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
            texts = [(k, v) for k, v in pairs if isinstance(k, ast.Constant) and k.value == "help"]
            keyword.value = ast.Dict([k for k, _ in texts], [v for _, v in texts])
    return statement


def _base(module: str, base: ast.expr) -> type:
    name = base.id if isinstance(base, ast.Name) else ""
    where = _definitions(module).get(name)
    if isinstance(where, str) and where.split(".")[0] not in SLOW:
        return _value(module, name)
    return outline(where if isinstance(where, str) else module, name)


def _value(module: str, name: str) -> Any:
    """The value of `name` in a module. For a class of a slow package: an Enum with its members, or an empty class."""
    found = _definitions(module).get(name, UNKNOWN)
    if isinstance(found, str):
        return _value(found, name) if found.split(".")[0] in SLOW else getattr(importlib.import_module(found), name)
    if not isinstance(found, ast.ClassDef):
        return UNKNOWN
    if not any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in found.bases):
        return type(name, (), {})
    members = [n for n in found.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)]
    return Enum(name, {n.targets[0].id: n.value.value for n in members}, type=str)  # type: ignore
