"""What `--help` prints: every option under the class that declares it, with its attribute docstring."""

import ast
import inspect
import itertools
import shutil
import textwrap
from dataclasses import MISSING, fields
from typing import Any

from open_r1.options.outline import DEFINITIONS, UNKNOWN
from open_r1.options.values import describe


def format_help(classes: tuple[type, ...], hints: dict[str, Any], prog: str, description: str, example: str) -> str:
    """Usage, the options of each class (ours before those of transformers), and an example."""
    width = min(shutil.get_terminal_size().columns, 110)
    sections: dict[type, list[str]] = {}
    for cls in classes:
        docs = {owner: _attribute_docstrings(owner) for owner in cls.__mro__ if owner is not object}
        for f in fields(cls):  # type: ignore[arg-type]
            if f.name not in hints:
                continue
            owner = next(o for o in cls.__mro__ if f.name in inspect.get_annotations(o))
            text = docs[owner].get(f.name) or " ".join(str(f.metadata.get("help", "")).split())
            sections.setdefault(owner, []).append(_entry(f, hints[f.name], text, width))
    lines = [f"usage: {prog} [--config FILE] [--option value ...]", "", description, ""]
    lines += ["Options come from the YAML file after --config; those on the command line win. True or false"]
    lines += ["options can stand alone (--packing) or be turned off (--no_packing).", ""]
    for owner in sorted(sections, key=lambda o: not o.__module__.startswith("open_r1")):
        summary = (inspect.getdoc(owner) or "").split("\n")[0]
        title = summary if owner.__module__.startswith("open_r1") else f"From {owner.__module__.split('.')[0]}:"
        lines += [title, *sections[owner], ""]
    return "\n".join([*lines, "Example:", f"  {example}", ""])


def _entry(f: Any, hint: Any, text: str, width: int) -> str:
    default = f.default_factory() if f.default_factory is not MISSING else f.default
    shown = "" if default in (None, MISSING, UNKNOWN) else f", default {getattr(default, 'value', default)}"
    head = f"  --{f.name}  ({describe(hint)}{shown})"
    return "\n".join([head, textwrap.fill(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)])


def _attribute_docstrings(cls: type) -> dict[str, str]:
    """The string under each field of `cls`, read from its source."""
    definition = DEFINITIONS.get(cls)
    if definition is None:
        try:
            definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]  # type: ignore[assignment]
        except OSError:
            return {}
    found = {}
    for statement, following in itertools.pairwise(definition.body):  # type: ignore[union-attr]
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found
