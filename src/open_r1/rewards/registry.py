"""Finds rewards by name or by import path."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, update_wrapper
from pathlib import Path
from types import ModuleType
from typing import Any

from open_r1.errors import UserError, did_you_mean, one_line
from open_r1.rewards.accuracy import accuracy_reward
from open_r1.rewards.code.programs import declare
from open_r1.rewards.code.rewards import (
    binary_code_reward,
    cf_code_reward,
    code_reward,
    get_code_format_reward,
    ioi_code_reward,
)
from open_r1.rewards.format import format_lenient_reward, format_reward
from open_r1.rewards.length import get_cosine_scaled_reward, get_soft_overlong_punishment, len_reward
from open_r1.rewards.options import option
from open_r1.rewards.reasoning_steps import reasoning_steps_reward
from open_r1.rewards.repetition import get_repetition_penalty_reward
from open_r1.rewards.tag_count import tag_count_reward

RewardFunc = Callable[..., Sequence[float | None]]


def _options(args: Any, fields: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments from the `fields` of the script arguments, by keyword."""
    return {keyword: option(args, field) for keyword, field in fields.items()}


def _made(factory: Callable[..., RewardFunc], **fields: str) -> Callable[[Any], RewardFunc]:
    """A builder of a reward that `factory` makes. `fields` has, for each keyword, a field of the script arguments."""
    return lambda args: factory(**_options(args, fields))


def _code(function: RewardFunc, **fields: str) -> Callable[[Any], RewardFunc]:
    """A builder of a code reward, with `fields` as in `_made`."""

    def build(args: Any) -> RewardFunc:
        for language in option(args, "code_languages"):
            declare(language)
        options = _options(args, {"num_parallel": "parallel_code_exec_per_proc", **fields})
        reward = update_wrapper(partial(function, **options), function)
        reward.begin = partial(reward, wait=False)  # type: ignore[attr-defined]
        return reward

    return build


_LIMITS = {"time_limit": "code_time_limit", "memory_limit": "code_memory_limit"}
_PROVIDER = {"provider_type": "code_provider", "e2b_router_url": "e2b_router_url"}

REGISTRY: dict[str, Callable[[Any], RewardFunc]] = {
    "accuracy": lambda args: accuracy_reward,
    "format": lambda args: format_reward,
    "format_lenient": lambda args: format_lenient_reward,
    "tag_count": lambda args: tag_count_reward,
    "reasoning_steps": lambda args: reasoning_steps_reward,
    "length": lambda args: len_reward,
    "cosine": _made(
        get_cosine_scaled_reward,
        min_value_wrong="cosine_min_value_wrong",
        max_value_wrong="cosine_max_value_wrong",
        min_value_correct="cosine_min_value_correct",
        max_value_correct="cosine_max_value_correct",
        max_len="cosine_max_len",
    ),
    "repetition_penalty": _made(
        get_repetition_penalty_reward,
        ngram_size="repetition_n_grams",
        max_penalty="repetition_max_penalty",
        language="repetition_language",
    ),
    "soft_overlong_punishment": _made(
        get_soft_overlong_punishment, max_completion_len="max_completion_len", soft_punish_cache="soft_punish_cache"
    ),
    "code": _code(code_reward, **_PROVIDER, **_LIMITS),
    "binary_code": _code(binary_code_reward, **_PROVIDER, **_LIMITS),
    "cf_code": _code(
        cf_code_reward,
        **_PROVIDER,
        test_batch_size="code_eval_test_batch_size",
        scoring_mode="code_eval_scoring_mode",
    ),
    "ioi_code": _code(ioi_code_reward, provider_type="ioi_provider", test_batch_size="code_eval_test_batch_size"),
    "code_format": _made(get_code_format_reward, language="code_language"),
}
"""Maps each name to a function that takes the script arguments and returns the reward function."""

GRADED = ("accuracy", "length", "cosine")
"""Rewards that compare the completion with the right answer."""

BEST = {"accuracy": 1.0, "format": 1.0, "format_lenient": 1.0, "tag_count": 1.0, "reasoning_steps": 1.0}
"""The reward that `gold_completion` must get. Rewards that are not listed have no fixed maximum."""


def get_reward_funcs(script_args: Any) -> list[RewardFunc]:
    """The functions that `script_args.reward_funcs` names, in that order.

    Options of a reward are read from the other fields of `script_args`. Raises `UserError` for an unknown name or path.
    """
    return [get_reward_func(name, script_args) for name in script_args.reward_funcs]


def get_reward_func(name: str, script_args: Any = None) -> RewardFunc:
    """One reward: a registered name, `module:function` (the working directory can be imported from), or
    `path/to/file.py:function`."""
    if name in REGISTRY:
        return REGISTRY[name](script_args)
    if ":" in name:
        return _import(name)
    raise UserError(
        f"reward_funcs: there is no reward {name!r}.{did_you_mean(name, REGISTRY, cutoff=0.4)} There are: "
        f"{', '.join(REGISTRY)}. For your own function, write my_module:my_reward or path/to/file.py:my_reward."
    )


def _import(path: str) -> RewardFunc:
    module_name, _, attribute = path.rpartition(":")
    if module_name.endswith(".py") or "/" in module_name:
        module = _load_file(path, Path(module_name).expanduser().absolute())
    else:
        module = _load_module(path, module_name)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UserError(f"reward_funcs: {path!r}: {module_name} has no function {attribute!r}.")
    return function


def _load_module(path: str, name: str) -> ModuleType:
    _can_import_from(Path.cwd())
    try:
        with _importing(path, name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"reward_funcs: {path!r}: there is no module {error.name!r}: put {name.replace('.', '/')}.py in the "
            "working directory, install it, or give the path of the file, such as path/to/file.py:my_reward."
        ) from None


def _load_file(path: str, file: Path) -> ModuleType:
    """The module in `file`, loaded once. It may import other modules from its folder."""
    if not file.is_file() or file.suffix != ".py":
        raise UserError(f"reward_funcs: {path!r}: {file} is not a Python file.")
    name = f"{file.stem} ({file.parent})"  # not a name that an import statement could have
    if name in sys.modules:
        return sys.modules[name]
    _can_import_from(file.parent)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importing(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importing(path: str, name: str = "") -> Iterator[None]:
    """Turns what goes wrong inside the user's module into a UserError that says where. That there is no module `name`,
    or no package that it is in, is passed on."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise
        where = ""
        if not isinstance(error, SyntaxError):  # whose message names the line
            frames = traceback.extract_tb(error.__traceback__)
            last = [frame for frame in frames if not frame.filename.startswith("<frozen")][-1]
            where = f" ({last.filename}, line {last.lineno})"
        raise UserError(
            f"reward_funcs: {path!r}: its module cannot be imported: {type(error).__name__}: {one_line(error)}{where}."
        ) from error


def _can_import_from(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
