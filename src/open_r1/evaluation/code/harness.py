"""Python programs with a main file of ours, and numpy for them.

LiveCodeBench's programs may import numpy, and the tests of HumanEval+ and MBPP+ do. The system's Python runs them. If
it has no numpy, it gets that of this environment.
"""

import importlib.util
import logging
from functools import cache
from pathlib import Path

from open_r1.errors import UserError
from open_r1.rewards.code.isolation import GIVEN, interpreter
from open_r1.rewards.code.programs import Program
from open_r1.rewards.code.queue import JUDGING
from open_r1.rewards.code.sandbox import Limits

logger = logging.getLogger(__name__)

_TRIAL = "import numpy\nprint(numpy.allclose([1.0], [1.0]))"
_TRIAL_LIMITS = Limits(seconds=20, memory_mb=4096)
_FINDER = """
import sys
class Numpy:
    def find_spec(name, path=None, target=None):
        if name == "numpy":
            import os
            from importlib.util import spec_from_file_location
            folder = {folder!r} if os.path.isdir({folder!r}) else {given!r} + {folder!r}
            return spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])
sys.meta_path.append(Numpy)
"""


def python_program(source: str) -> Program:
    """`source` as a program that finds numpy, if it can be had."""
    return _with_numpy(source, numpy_folders() or ())


def require_numpy(task: str) -> None:
    """Raises `UserError` if programs have no numpy."""
    if numpy_folders() is None:
        raise UserError(f"task {task}: its tests need numpy, but {interpreter()} does not have it: install it there.")


@cache
def numpy_folders() -> tuple[str, ...] | None:
    """Folders of this environment's numpy that programs need to see. Empty if the system has its own numpy. None, with
    a warning, if programs cannot have numpy."""
    found = importlib.util.find_spec("numpy")
    own = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    libraries = [folder.with_name("numpy.libs") for folder in own]
    for folders in ((), tuple(str(folder) for folder in (*own, *libraries) if folder.is_dir())):
        if JUDGING.run(_with_numpy(_TRIAL, folders), _TRIAL_LIMITS).stdout == "True\n":
            return folders
    logger.warning(
        "programs that import numpy fail here: %s has no numpy, and cannot use that of this environment.", interpreter()
    )
    return None


def _with_numpy(source: str, folders: tuple[str, ...]) -> Program:
    finder = _FINDER.format(folder=folders[0], given=GIVEN) if folders else ""
    return Program("python", {"main.py": finder + source}, folders)
