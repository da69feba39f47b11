"""From a YAML file and a command line to filled dataclasses, with errors that name what is wrong and where.

The conventions are those of `transformers.HfArgumentParser`. It is not used itself because it cannot read a bare
`--bf16` (a field whose default is None), `--no_packing`, dicts, or lists for fields that also take text, and
because its errors name neither file nor line.
"""

import argparse
import difflib
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from open_r1.errors import UserError
from open_r1.options.help import format_help
from open_r1.options.legacy import UNDERSTOOD, translate
from open_r1.options.values import Given, Mismatch, convert, read_words, read_yaml


def parse_options(
    argv: list[str], *classes: type, prog: str, description: str, example: str | None = None
) -> tuple[Any, ...]:
    """Fills one instance of each of `classes` from `--config FILE` and from options, which win over the file.

    Raises `UserError` for an unknown option, a value of the wrong type, a missing or broken file, and whatever
    the classes themselves refuse. `--help` prints all options, ends with `example`, and exits.
    """
    hints = _hints(classes)
    parser = _parser(hints, prog)
    known, stray = parser.parse_known_args(argv)
    if known.help:
        override = " --learning_rate 1e-6" if "learning_rate" in hints else ""
        example = example or f"{prog} --config recipe.yaml{override}"
        print(format_help(classes, hints, prog, description, example))
        raise SystemExit(0)
    if len(known.config) > 1:
        raise UserError(f"--config is given {len(known.config)} times: give one file, and options to override it.")
    if stray:
        raise _stray(stray[0], hints)

    recipe = _read_recipe(known.config[0]) if known.config else {}
    typed = {k: read_words(v) for k, v in vars(known).items() if k not in ("config", "help") and v is not None}
    merged = translate([recipe, typed], set(hints))
    for name, given in merged.items():
        if name not in hints:
            raise _unknown(name, given.where, hints)
    values = {name: _convert(name, given, hints[name]) for name, given in merged.items()}
    return tuple(_build(cls, values) for cls in classes)


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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(f"{message} (see {self.prog} --help).")


def _parser(hints: dict[str, Any], prog: str) -> _Parser:
    """Splits a command line into options and their words; types are looked at later."""
    parser = _Parser(prog=prog, allow_abbrev=False, add_help=False)
    parser.add_argument("--config", action="append", default=[])
    parser.add_argument("-h", "--help", action="store_true")
    for name in dict.fromkeys([*hints, *UNDERSTOOD]):
        parser.add_argument(*_flags(name), dest=name, nargs="*")
        if hints.get(name) in (bool, bool | None):
            parser.add_argument(*_flags(f"no_{name}"), dest=name, action="store_const", const=["false"])
    return parser


def _flags(name: str) -> list[str]:
    return sorted({f"--{name}", f"--{name.replace('_', '-')}"})


def _hints(classes: tuple[type, ...]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for cls in classes:
        assert is_dataclass(cls)
        types = get_type_hints(cls)
        own = {f.name: types[f.name] for f in fields(cls) if f.init}
        assert not own.keys() & hints.keys(), f"{cls.__name__} repeats {own.keys() & hints.keys()}"
        hints |= own
    return hints


def _read_recipe(config: str) -> dict[str, Given]:
    path = Path(config)
    if not path.is_file():
        raise UserError(f"--config {config}: there is no such file.{_recipes_near(path)}")
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


def _stray(word: str, hints: dict[str, Any]) -> UserError:
    if word.startswith("--"):
        return _unknown(word[2:].split("=")[0].replace("-", "_"), "command line", hints)
    remedy = f": write --config {word}" if word.endswith((".yaml", ".yml")) else ""
    return UserError(f"command line: {word!r} belongs to no option{remedy}.")


def _unknown(name: str, where: str, hints: dict[str, Any]) -> UserError:
    near = difflib.get_close_matches(name, [*hints, *UNDERSTOOD], n=1)
    return UserError(f"{where}: unknown option {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""))


def _convert(name: str, given: Given, hint: Any) -> Any:
    try:
        return convert(given.value, given.text, hint)
    except Mismatch as mismatch:
        shown = repr(given.value if given.text is None else given.text)
        raise UserError(f"{given.where}: {name} is {shown}: expected {mismatch}.") from None


def _build(cls: type, values: dict[str, Any]) -> Any:
    own = {f.name: values[f.name] for f in fields(cls) if f.name in values}  # type: ignore[arg-type]
    for f in fields(cls):  # type: ignore[arg-type]
        if f.init and f.name not in own and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{f.name} is missing: give --{f.name}.")
    try:
        return cls(**own)
    except (ValueError, ImportError) as error:
        raise UserError(str(error)) from error
