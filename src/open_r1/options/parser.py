"""Fills dataclasses from a YAML file and a command line, with errors that say what is wrong and where.

The conventions are those of `transformers.HfArgumentParser`, which is not used because it cannot read a bare `--bf16`
(a field whose default is None), `--no_packing`, dicts, or lists for fields that also take text, and because its errors
name neither file nor line.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from open_r1.errors import UserError, did_you_mean
from open_r1.options.annotations import Positional, Repeated, aliases_of, check_range, mark_of, split_hint
from open_r1.options.command_line import Arity, Words, split_command_line
from open_r1.options.help import format_help, is_training, spelling
from open_r1.options.legacy import UNDERSTOOD, translate
from open_r1.options.outline import outline
from open_r1.options.values import Given, Mismatch, convert, read_words, read_yaml, shown


def parse_options(
    argv: Sequence[str] | None, *classes: type | str, prog: str, description: str | None
) -> tuple[Any, ...]:
    """An instance of each of `classes`, filled from `argv` (default: the command line of this process) and from the
    file that `--config` names; `argv` takes precedence.

    A class may be given as "module:Class", to be imported only after its options have been checked. `--help` prints all
    options and exits. Raises `UserError` for an unknown option, a value of the wrong type, a missing or broken file,
    and whatever the classes reject.
    """
    options, rest = _parse(sys.argv[1:] if argv is None else argv, classes, prog, description or "", None)
    assert not rest
    return options


def parse_known(
    argv: Sequence[str], *classes: type | str, prog: str, description: str, usage: str = ""
) -> tuple[tuple[Any, ...], list[str]]:
    """Like `parse_options`, for a command that passes unknown words on to another, including `--config`.

    Also returns those words; `usage` describes them.
    """
    return _parse(argv, classes, prog, description, usage)


def _parse(
    argv: Sequence[str], classes: tuple[type | str, ...], prog: str, description: str, usage: str | None
) -> tuple[tuple[Any, ...], list[str]]:
    others = usage is not None
    outlines = tuple(cls if isinstance(cls, type) else _outline(cls) for cls in classes)
    hints = _hints(outlines)
    if "-h" in argv or "--help" in argv:
        print(format_help(outlines, hints, prog, description, usage))
        raise SystemExit(0)
    understood = UNDERSTOOD if is_training(hints) else set()
    aliases = aliases_of(hints)
    positional = [name for name, hint in hints.items() if mark_of(hint, Positional)]
    plain = {name: split_hint(hint)[0] for name, hint in hints.items()}
    many = [name for name in positional if get_origin(plain[name]) is list]
    one_word = others or bool(positional)
    arities: dict[str, Arity] = dict.fromkeys([*understood, *([] if others else ["config"])], "many")
    arities |= {name: _arity(hint, one_word) for name, hint in hints.items()}
    arities |= {alias: arities[name] for alias, name in aliases.items()}
    unsettable = {name for name, kind in plain.items() if kind is bool or NoneType in get_args(kind)}
    words, rest = split_command_line(argv, arities, positional=positional, unsettable=unsettable, many=many)
    if rest and not others:
        raise _stray(rest[0], [*hints, *aliases, *understood])

    recipe = {}
    if "config" not in hints and not others:
        files, named = _config_files(words.pop("config", []), "config" in aliases)
        recipe = _read_recipe(files)
        words |= {"config": named} if named else {}
    typed = {name: _typed(hints.get(aliases.get(name, name)), given) for name, given in words.items()}
    layers = [_without_aliases(layer, aliases) for layer in (recipe, typed)]
    merged = translate(layers, set(hints)) if understood else layers[0] | layers[1]
    for name, given in merged.items():
        if name not in hints:
            raise _unknown(name, given.where, [*hints, *aliases, *understood])
    values = {name: _convert(name, given, hints[name]) for name, given in merged.items()}
    for cls in outlines:
        _check_complete(cls, hints, values, prog)
    return tuple(_build(cls, values) for cls in map(_real, classes)), rest


def resolved_options(*instances: Any) -> dict[str, Any]:
    """All options of `instances` in one flat dict of plain values, without secrets: a recipe for `run/config.yaml`."""
    flat: dict[str, Any] = {}
    for instance in instances:
        values = instance.to_dict() if hasattr(instance, "to_dict") else vars(instance)
        if "eos_token" in values:  # `to_dict` hides everything named `*_token`
            values["eos_token"] = instance.eos_token
        flat |= {f.name: values[f.name] for f in fields(instance) if f.init and f.name in values}
    return {name: value for name, value in flat.items() if name not in ("hub_token", "local_rank")}


def default_hub_model_id(model_name_or_path: str, task: str, token: str | None = None) -> str:
    """`{username}/{model_name}-{task}`. Asks the hub for the user name, so call it only before a push."""
    from huggingface_hub import whoami

    return f"{whoami(token)['name']}/{Path(model_name_or_path).name}-{task}"


def _outline(named: str) -> type:
    try:
        return outline(*named.split(":"))
    except LookupError:  # the library has moved its sources: import it, which is slow
        return _real(named)


def _real(cls: type | str) -> type:
    if isinstance(cls, type):
        return cls
    module, name = cls.split(":")
    return getattr(importlib.import_module(module), name)


def _hints(classes: tuple[type, ...]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for cls in classes:
        types = get_type_hints(cls, include_extras=True)
        own = {f.name: types[f.name] for f in fields(cls) if f.init}
        assert not own.keys() & hints.keys(), f"{cls.__name__} repeats {own.keys() & hints.keys()}"
        hints |= own
    return hints


def _arity(hint: Any, one_word: bool) -> Arity:
    """How many words may follow an option. With `one_word`, as few as its type allows, so that the words that follow
    remain for positional options or another command."""
    plain = split_hint(hint)[0]
    is_list = list in (plain, get_origin(plain), *map(get_origin, get_args(plain)))
    if not one_word or (is_list and not mark_of(hint, Repeated)):
        return "many"
    return "none" if plain in (bool, bool | None) else "one"


def _typed(hint: Any, given: list[Words]) -> Given:
    if given[-1] is None:
        plain = split_hint(hint)[0]
        return Given(False if plain in (bool, bool | None) else None, None, "command line", typed=True)
    if mark_of(hint, Repeated):
        return Given([word for words in given for word in words or []], None, "command line", typed=True)
    return read_words(given[-1])


def _config_files(given: list[Words], is_alias: bool) -> tuple[list[str], list[Words]]:
    """The files that `--config` names, and its other values if it is also an alias (of a dataset configuration)."""
    if not is_alias:
        return [name for words in given for name in words or [""]], []
    files = [words[0] for words in given if words and words[0].endswith((".yaml", ".yml"))]
    return files, [words for words in given if not words or words[0] not in files]


def _read_recipe(files: list[str]) -> dict[str, Given]:
    if len(files) > 1:
        raise UserError(f"--config has {len(files)} files: give one, and options to override it.")
    if not files:
        return {}
    path = Path(files[0])
    if not path.is_file():
        raise UserError(f"--config {path}: there is no such file.{_recipes_near(path)}")
    return read_yaml(path)


def _without_aliases(layer: dict[str, Given], aliases: dict[str, str]) -> dict[str, Given]:
    for alias in layer.keys() & aliases.keys():
        if aliases[alias] in layer:
            raise UserError(f"{layer[alias].where}: {alias} and {aliases[alias]} are the same option: remove one.")
    return {aliases.get(name, name): given for name, given in layer.items()}


def _recipes_near(path: Path) -> str:
    """Lists the recipes near a missing one, the most similar first."""
    here = Path.cwd()
    folder = next(p for p in path.absolute().parents if p.is_dir())
    if folder == here or folder in here.parents:
        folder = here / "recipes"
    found = [p for p in folder.rglob("*.y*ml") if "accelerate_configs" not in p.parts]
    names = [str(p.relative_to(here) if p.is_relative_to(here) else p) for p in found]
    near = difflib.get_close_matches(str(path), names, n=12, cutoff=0.0)
    return f" There are: {', '.join(near)}." if near else ""


def _stray(word: str, known: list[str]) -> UserError:
    if word.startswith("--"):
        return _unknown(word[2:].split("=")[0].replace("-", "_"), "command line", known)
    remedy = f": write --config {word}" if word.endswith((".yaml", ".yml")) else ""
    return UserError(f"command line: {word!r} does not belong to an option{remedy}.")


def _unknown(name: str, where: str, known: list[str]) -> UserError:
    return UserError(f"{where}: unknown option {name!r}.{did_you_mean(name, known)}")


def _convert(name: str, given: Given, hint: Any) -> Any:
    try:
        value = convert(given, hint)
    except Mismatch as mismatch:
        raise UserError(f"{given.where}: {name} is {shown(given)}: expected {mismatch}.") from None
    check_range(name, value, hint)
    return value


def _check_complete(cls: type, hints: dict[str, Any], values: dict[str, Any], prog: str) -> None:
    for f in fields(cls):  # type: ignore[arg-type]
        if f.init and f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            place = mark_of(hints[f.name], Positional)
            spelled = spelling(f.name, hints)
            raise UserError(
                f"{f.name} is missing: give {f'{place.metavar} or ' if place else ''}{spelled} (see {prog} --help)."
            )


def _build(cls: type, values: dict[str, Any]) -> Any:
    own = {f.name: values[f.name] for f in fields(cls) if f.name in values}  # type: ignore[arg-type]
    try:
        return cls(**own)
    except (ValueError, ImportError) as error:
        raise UserError(str(error)) from error
