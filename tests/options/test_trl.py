"""The table of docs/tutorials/from-trl.md says of every option of TRL what happens to it here."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from open_r1.configs import GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig
from open_r1.options.legacy import IGNORED, RENAMED, UNSUPPORTED

TRL = json.loads((Path(__file__).parent / "trl_1_16.json").read_text(encoding="utf-8"))
"""Names and defaults in the sources of TRL 1.16.0, by class."""
TWICE = ("loss_type", "shuffle_dataset")
"""Options whose answer differs for GRPO and SFT."""
PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "from-trl.md"
GRPO = [GRPOConfig, GRPOScriptArguments, ModelConfig]
OURS = {"base": GRPO, "grpo": GRPO, "sft": [SFTConfig, *GRPO[1:]], "model": GRPO, "script": GRPO, "grpo script": GRPO}


def rows():
    """The rows of the table: `{what happens: {option: note in parentheses or None}}`."""
    table = PAGE.read_text(encoding="utf-8").partition("## Every option")[2]
    found = {}
    for what, options in re.findall(r"^\| ([^|]+) \| (`[^|]+) \|$", table, flags=re.MULTILINE):
        found[what] = dict(re.findall(r"`(\w+)`(?: \(([^)]*)\))?", re.sub(r"\(`(\w+)`\)", r"(\1)", options)))
    return found


def place(name, part):
    """The row of an option, given the class of TRL that has it."""
    for what, options in rows().items():
        if name in options and (name not in TWICE or options[name].lower() == part):
            return what, options[name]
    raise AssertionError(f"{name} is not in the table")


def default(part, name):
    for cls in OURS[part]:
        for field in dataclasses.fields(cls):
            if field.name == name:
                made = field.default_factory
                return field.default if made is dataclasses.MISSING else made()
    raise AssertionError(f"there is no option {name}")


def test_the_table_has_the_options_of_trl_and_no_others():
    there = {name for options in TRL.values() for name in options}
    assert {name for options in rows().values() for name in options} == there


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in TRL.items() for name in names])
def test_an_option_is_where_the_table_has_it(part, name):
    what, note = place(name, part)
    if what.startswith("the same name, meaning and default"):
        assert default(part, name) == TRL[part][name]
    elif what.startswith("the same name, another default"):
        assert default(part, name) != TRL[part][name]
    elif what.startswith("the same name, a "):
        default(part, name)
    elif what == "another name":
        assert note in (RENAMED.get(name), "steps_per_generation")
        default(part, note)
    elif what.startswith("no effect"):
        assert name in IGNORED
    else:
        assert what.startswith("refused") and TRL[part][name] in UNSUPPORTED[name][0]
