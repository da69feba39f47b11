"""`import open_r1`: light, and complete."""

import ast
import inspect
import itertools
import re
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

import open_r1

HEAVY = {"torch", "transformers", "accelerate", "datasets", "numpy", "pyarrow", "rich", "yaml"}


def modules_after(statement):
    """Top-level modules of a fresh interpreter after `statement`."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy_and_grading_no_torch():
    assert not modules_after("import open_r1; dir(open_r1)") & HEAVY
    assert not modules_after("from open_r1 import grade; assert grade('so 7', '7').correct") & {"torch", "transformers"}


def test_every_public_name_is_there_once_and_is_what_its_module_has():
    from open_r1 import configs, errors
    from open_r1.engine import load
    from open_r1.rewards import grader
    from open_r1.run import trainers

    wanted = {
        "GRPOConfig": configs.GRPOConfig,
        "SFTConfig": configs.SFTConfig,
        "ModelConfig": configs.ModelConfig,
        "GRPOTrainer": trainers.GRPOTrainer,
        "SFTTrainer": trainers.SFTTrainer,
        "UserError": errors.UserError,
        "Interrupted": errors.Interrupted,
        "grade": grader.grade,
        "load_engine": load.load_engine,
    }
    assert {name: getattr(open_r1, name) for name in open_r1.__all__} == wanted
    assert set(wanted) <= set(dir(open_r1))


def test_an_unknown_name_is_an_attribute_error_and_modules_are_found():
    with pytest.raises(AttributeError, match="has no attribute 'GRPOTrainr'"):
        _ = open_r1.GRPOTrainr  # type: ignore[attr-defined]
    from open_r1 import grpo

    assert grpo.__name__ == "open_r1.grpo"


REFERENCE = (Path(__file__).parents[1] / "docs" / "python-reference.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"^::: (\S+)$", REFERENCE, flags=re.MULTILINE)


def documented(path):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def test_the_reference_has_every_public_name():
    assert {f"open_r1.{name}" for name in open_r1.__all__} <= set(DOCUMENTED)


@pytest.mark.parametrize("path", DOCUMENTED)
def test_what_the_reference_lists_has_a_docstring_and_so_has_every_field_and_method(path):
    target = documented(path)
    assert target.__doc__ and not target.__doc__.startswith(f"{target.__name__}(")  # as dataclasses make one up
    if not inspect.isclass(target) or issubclass(target, Exception):
        return
    for name, member in vars(target).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            assert member.__doc__, name
    body = ast.parse(textwrap.dedent(inspect.getsource(target))).body[0].body  # type: ignore[attr-defined]
    for field, following in itertools.pairwise([*body, None]):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(following, ast.Expr), f"{ast.unparse(field)} has no docstring"


@pytest.mark.parametrize("name", ["GRPOTrainer", "SFTTrainer", "load_engine", "grade"])
def test_every_parameter_is_documented(name):
    target = getattr(open_r1, name)
    for parameter in inspect.signature(target).parameters.values():
        assert re.search(rf"^ +\**{parameter.name}: ", target.__doc__, flags=re.MULTILINE), parameter.name
