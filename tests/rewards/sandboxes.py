"""The isolations that work on this machine, and a program that runs in one of them."""

import os
import shutil

import pytest

from open_r1.rewards.code.choose import candidates, works
from open_r1.rewards.code.isolation import interpreter
from open_r1.rewards.code.sandbox import Limits, run
from open_r1.rewards.code.seccomp import filter_program

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
needs_filter = pytest.mark.skipif(filter_program() is None, reason="no table of system calls for this processor")
KINDS = {isolation.kind: isolation for isolation in reversed(candidates()) if works(isolation)}


def only(*kinds):
    """One run for each of these isolations that works here."""
    found = [KINDS[kind] for kind in kinds if kind in KINDS]
    skip = pytest.mark.skip(reason="does not work here")
    return pytest.mark.parametrize(
        "isolation", found or [pytest.param(None, marks=skip)], ids=lambda i: i.kind if i else "none"
    )


every = only("bubblewrap", "landlock", "limits")
isolated = only("bubblewrap", "landlock")
as_another_user = every if os.geteuid() == 0 else isolated


def execute(source, folder, isolation, stdin="", **limits):
    """How a Python program ends."""
    (folder / "main.py").write_text(source)
    limits = Limits(**{"seconds": 1.0, "wall_seconds": 10.0, **limits})
    return run([interpreter(), "{code}/main.py"], folder, stdin=stdin, isolation=isolation, limits=limits)
