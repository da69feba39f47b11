"""From a YAML file and a command line to filled dataclasses, with errors that name what is wrong and where.

The conventions are those of `transformers.HfArgumentParser`. It is not used itself because it cannot read a bare
`--bf16` (a field whose default is None), `--no_packing`, dicts, or lists for fields that also take text, and
because its errors name neither file nor line.
"""

import difflib
import importlib
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from open_r1.errors import UserError
from open_r1.options.annotations import check_range, split_hint
from open_r1.options.command_line import Arity, split_command_line
from open_r1.options.help import format_help
from open_r1.options.legacy import UNDERSTOOD, translate
from open_r1.options.outline import outline
from open_r1.options.values import Given, Mismatch, convert, read_words, read_yaml, shown


def parse_options(
    argv: list[str], *classes: type | str, prog: str, description: str, example: str | None = None
) -> tuple[Any, ...]:
    """Fills one instance of each of `classes` from `--config FILE` and from options, which win over the file.

    A class can be named, as `module:Class`: it is then imported once its options are in order. Raises `UserError` for
    an unknown option, a value of the wrong type, a missing or broken file, and whatever the classes themselves refuse.
    `--help` prints all options, ends with `example`, and exits.
    """
    outlines = tuple(cls if isinstance(cls, type) else _outline(cls) for cls in classes)
    hints = _hints(outlines)
    understood = UNDERSTOOD if "per_device_train_batch_size" in hints else set()  # only training has a past
    arities: dict[str, Arity] = dict.fromkeys([*hints, *understood, "config"], "many")
    if "-h" in argv or "--help" in argv:
        override = " --learning_rate 1e-6" if "learning_rate" in hints else ""
        example = example or f"{prog} --config recipe.yaml{override}"
        print(format_help(outlines, hints, prog, description, example))
        raise SystemExit(0)
    words, stray = split_command_line(argv, arities, {name for name, hint in hints.items() if _can_be_unset(hint)})
    recipe = _read_recipe(words.pop("config", []))
    typed = {name: _typed(hints.get(name), values[-1]) for name, values in words.items()}
    if stray:
        raise _stray(stray[0], [*hints, *understood])
    merged = translate([recipe, typed], set(hints)) if understood else recipe | typed
    for name, given in merged.items():
        if name not in hints:
            raise _unknown(name, given.where, [*hints, *understood])
    values = {name: _convert(name, given, hints[name]) for name, given in merged.items()}
    for cls in outlines:
        _check_complete(cls, values)
    return tuple(_build(cls, values) for cls in map(_real, classes))


def resolved_options(*instances: Any) -> dict[str, Any]:
    """Every option of `instances` as one flat dict of plain values, without secrets: for `run/config.yaml`.

    Written as YAML it is itself a recipe that `--config` reads.
    """
    flat: dict[str, Any] = {}
    for instance in instances:
        values = instance.to_dict() if hasattr(instance, "to_dict") else vars(instance)
        if "eos_token" in values:  # `to_dict` hides whatever is called a token
            values["eos_token"] = instance.eos_token
        flat |= {f.name: values[f.name] for f in fields(instance) if f.init and f.name in values}
    return {name: value for name, value in flat.items() if name not in ("hub_token", "local_rank")}


def default_hub_model_id(model_name_or_path: str, task: str, token: str | None = None) -> str:
    """`{username}/{model_name}-{task}`; asks the hub who is logged in, so call it only to push."""
    from huggingface_hub import whoami

    return f"{whoami(token)['name']}/{Path(model_name_or_path).name}-{task}"


def _outline(named: str) -> type:
    try:
        return outline(*named.split(":"))
    except LookupError:  # a library that has moved its sources: slow, but right
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


def _can_be_unset(hint: Any) -> bool:
    plain = split_hint(hint)[0]
    return plain is bool or NoneType in get_args(plain)


def _typed(hint: Any, words: list[str] | None) -> Given:
    if words is None:
        plain = split_hint(hint)[0]
        return Given(False if plain in (bool, bool | None) else None, None, "command line", typed=True)
    return read_words(words)


def _read_recipe(config: list[list[str] | None]) -> dict[str, Given]:
    names = [name for words in config for name in words or [""]]
    if len(names) > 1:
        raise UserError(f"--config is given {len(names)} times: give one file, and options to override it.")
    if not names:
        return {}
    path = Path(names[0])
    if not path.is_file():
        raise UserError(f"--config {path}: there is no such file.{_recipes_near(path)}")
    return read_yaml(path)


def _recipes_near(path: Path) -> str:
    """Names the recipes beside a missing one, the likeliest first."""
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
    return UserError(f"command line: {word!r} belongs to no option{remedy}.")


def _unknown(name: str, where: str, known: list[str]) -> UserError:
    near = difflib.get_close_matches(name, known, n=1)
    return UserError(f"{where}: unknown option {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))


def _convert(name: str, given: Given, hint: Any) -> Any:
    try:
        value = convert(given, hint)
    except Mismatch as mismatch:
        raise UserError(f"{given.where}: {name} is {shown(given)}: expected {mismatch}.") from None
    check_range(name, value, hint)
    return value


def _check_complete(cls: type, values: dict[str, Any]) -> None:
    for f in fields(cls):  # type: ignore[arg-type]
        if f.init and f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{f.name} is missing: give --{f.name}.")


def _build(cls: type, values: dict[str, Any]) -> Any:
    own = {f.name: values[f.name] for f in fields(cls) if f.name in values}  # type: ignore[arg-type]
    try:
        return cls(**own)
    except (ValueError, ImportError) as error:
        raise UserError(str(error)) from error
