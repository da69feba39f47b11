import subprocess
import sys
from dataclasses import MISSING, fields
from typing import get_type_hints

import pytest

from open_r1 import configs
from open_r1.options.outline import UNKNOWN, outline
from open_r1.options.values import describe


@pytest.mark.parametrize("name", ["DataConfig", "GRPOConfig", "GRPOScriptArguments", "ModelConfig", "SFTConfig"])
def test_an_outline_has_the_fields_of_the_class(name):
    real, read = getattr(configs, name), outline("open_r1.configs", name)
    expected = {f.name: f for f in fields(real) if f.init}
    found = {f.name: f for f in fields(read)}
    assert list(found) == list(expected)
    hints, read_hints = (get_type_hints(cls, include_extras=True) for cls in (real, read))
    unknown = []
    for key, field in expected.items():
        assert describe(read_hints[key]) == describe(hints[key]), key
        assert found[key].metadata.get("help") == field.metadata.get("help")
        if field.default_factory is not MISSING:
            assert found[key].default_factory() == field.default_factory()
        elif found[key].default is UNKNOWN:
            unknown.append(key)
        else:
            assert found[key].default == field.default
    assert unknown in ([], ["optim"])


@pytest.mark.parametrize("module", ["sft", "grpo"])
def test_help_and_typing_errors_wait_for_no_library(module):
    code = f"""
import sys
from open_r1 import errors, {module}
for argv in (["--help"], ["--lerning_rate", "1"], ["--learning_rate", "fast"], ["--beta", "-1"], ["--max_length", "0"]):
    try:
        {module}.main(argv)
    except (SystemExit, errors.UserError):
        continue
    raise AssertionError(argv)
from open_r1 import evaluate, generate
from open_r1.evaluation import ask
for command in (ask, evaluate, generate):
    for argv in (["--help"], ["--temperatur", "1"], ["--temperature", "hot"], ["--tensor-parallel-size", "0"]):
        try:
            command.main(argv)
        except (SystemExit, errors.UserError):
            continue
        raise AssertionError(argv)
heavy = {{"torch", "transformers", "accelerate", "datasets"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
