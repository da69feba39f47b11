"""Formats `--help`: the options in groups, the common ones first, each with its attribute docstring.

A group is a dataclass, or the part of one below a comment such as `# --- Loss ---`, as in `TrainingArguments`.
"""

import ast
import functools
import inspect
import itertools
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from open_r1.options.annotations import Alias, Positional, Range, mark_of
from open_r1.options.outline import SOURCES, UNKNOWN
from open_r1.options.values import describe

# fmt: off
COMMON = (
    "question", "model", "model_name_or_path", "tasks", "hf_dataset", "dataset_name", "prompt_column",
    "system_prompt", "output", "output_dir", "reward_funcs", "learning_rate",
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "max_length",
    "packing", "num_generations", "max_completion_length", "max_new_tokens", "use_vllm", "vllm_mode", "engine",
    "base_url", "report_to", "dry_run",
)
# fmt: on
"""Options that come first in the help of a command with many options."""
MANY = 16
"""Number of options from which on the help begins with an index and the common options."""
_SECTION = re.compile(r"\s*# --- (.+) ---\s*")


def is_training(hints: Mapping[str, Any]) -> bool:
    """Whether these are the options of `sft` or `grpo`, which are spelled as in TRL and have older names, too."""
    return "per_device_train_batch_size" in hints


def spelling(name: str, hints: Mapping[str, Any]) -> str:
    """The spelling of an option in docs and messages; dashes and underscores work everywhere."""
    return f"--{name if is_training(hints) else name.replace('_', '-')}"


def format_help(
    classes: Iterable[type], hints: Mapping[str, Any], prog: str, description: str, usage: str | None
) -> str:
    """Usage, description, an index of the groups, and the groups (those of transformers last)."""
    width = min(shutil.get_terminal_size().columns, 110)
    groups: dict[str, list[Field]] = {"Common": []} if len(hints) >= MANY else {}
    foreign: dict[str, list[Field]] = {}
    for cls in classes:
        for f in fields(cls):  # type: ignore[arg-type]
            title, ours = _group_of(cls, f.name)
            if f.name in hints:
                common = "Common" in groups and f.name in COMMON
                (groups if ours or common else foreign).setdefault("Common" if common else title, []).append(f)
    groups.get("Common", []).sort(key=lambda f: COMMON.index(f.name))
    places = [mark.metavar for hint in hints.values() if (mark := mark_of(hint, Positional))]
    config = "[--config FILE] " if usage is None and "config" not in hints else ""
    lines = [f"usage: {' '.join([prog, *places])} {config}[--option value ...] {usage or ''}".rstrip(), ""]
    lines += [description.strip(), ""]
    if config:
        lines += [
            "Options can also be in a YAML file (--config FILE); the command line takes precedence. --OPTION without",
            "a value means true. --no-OPTION means false, or unsets an optional value.",
            "",
        ]
    docs = {name: text for cls in classes for name, text in _texts(cls).items()}
    groups |= foreign
    if len(groups) > 2:
        for title, members in groups.items():
            names = f"{title}: {', '.join(spelling(f.name, hints)[2:] for f in members)}"
            lines.append(textwrap.fill(names, width, initial_indent="  ", subsequent_indent=" " * 6))
        lines.append("")
    for title, members in groups.items():
        lines += [f"{title}:", *(_entry(f, hints, docs, width) for f in members), ""]
    if is_training(hints):
        lines += ["Example:", f"  {prog} --config recipe.yaml --learning_rate 1e-6", ""]
    return "\n".join(lines)


def _entry(f: Field, hints: Mapping[str, Any], docs: Mapping[str, str], width: int) -> str:
    hint, default = hints[f.name], f.default_factory() if f.default_factory is not MISSING else f.default
    if isinstance(default, list | tuple):
        default = ", ".join(map(str, default)) or None
    shown = "" if default in (None, MISSING, UNKNOWN, "") else f", default {getattr(default, 'value', default)}"
    if isinstance(default, bool) and not default:
        shown = ""
    place, alias, allowed = mark_of(hint, Positional), mark_of(hint, Alias), mark_of(hint, Range)
    shown = f", {allowed}{shown}" if allowed else shown
    names = [place.metavar] if place else []
    names += [spelling(name, hints) for name in [f.name, *(alias.names if alias else ())]]
    text = docs.get(f.name) or " ".join(str(f.metadata.get("help", "")).split())
    head = f"  {', '.join(names)}  ({describe(hint)}{shown})"
    return "\n".join([head, textwrap.fill(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)])


def _group_of(cls: type, name: str) -> tuple[str, bool]:
    """The title of an option's group, and whether it is ours."""
    owner = next(o for o in cls.__mro__ if name in inspect.get_annotations(o))
    section = _sections(owner).get(name)
    if owner.__module__.startswith("transformers"):
        return f"{section or 'Other'} (transformers)", False
    return section or (inspect.getdoc(owner) or owner.__name__).split("\n")[0].rstrip("."), True


def _texts(cls: type) -> dict[str, str]:
    """The docstring below each field of `cls`."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__[:-1]):
        for statement, following in itertools.pairwise(_definition(owner).body):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


@functools.cache
def _sections(owner: type) -> dict[str, str]:
    """The section of each field."""
    starts = {
        i: match[1] for i, line in enumerate(_source(owner).splitlines(), 1) if (match := _SECTION.fullmatch(line))
    }
    found = {}
    for statement in _definition(owner).body:
        above = [line for line in starts if line < statement.lineno]
        if above and isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = starts[max(above)]
    return found


@functools.cache
def _definition(owner: type) -> ast.ClassDef:
    definition = ast.parse(_source(owner)).body[0]
    assert isinstance(definition, ast.ClassDef)
    return definition


@functools.cache
def _source(owner: type) -> str:
    return textwrap.dedent(SOURCES.get(owner) or inspect.getsource(owner))
