"""Access to the hub, with one attempt and one sentence if it does not answer or refuses."""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from open_r1.errors import UserError, first_line

SECONDS = 5.0
"""Timeout for the first request of a process."""
_MARK = "OPEN_R1_HUB_UNREACHABLE"
"""Environment variable that names an endpoint that did not answer, for child processes."""


@contextlib.contextmanager
def reading_hub(name: str, field: str) -> Iterator[None]:
    """A context for reading `name`, a hub id or local path that the user gave as `field`.

    The first one tries the hub. If the hub does not answer, only the local cache is used from then on, as with
    HF_HUB_OFFLINE=1, and missing files raise `UserError`. Names that can only be local paths do not use the hub.
    """
    if name.startswith(("/", ".", "~")) or Path(name).expanduser().exists():
        yield
        return
    reason = why_unreachable()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if reason is None:
            raise
        raise UserError(blocked(f"{field} {name} is neither a local path nor in the cache", reason)) from error


def blocked(what: str, reason: str) -> str:
    """The error message for an unreachable hub, the same in every command."""
    return (
        f"{what}, and {reason}: give a local folder, set HF_ENDPOINT to a mirror that this machine can reach, or "
        "fill the cache on another machine and set HF_HUB_OFFLINE=1 (docs/offline.md)."
    )


def create_repo(repo: str, **options: Any) -> None:
    """Creates `repo` if necessary, and checks before hours of work that it is writable. `options` are those of
    `huggingface_hub.create_repo`. Raises `UserError`."""
    if reason := why_unreachable():
        raise UserError(blocked(f"{repo} on the hub cannot be written to", reason))
    import huggingface_hub

    try:
        huggingface_hub.create_repo(repo, exist_ok=True, **options)
    except Exception as error:
        raise refused(repo, error) from error


def refused(repo: str, error: Exception) -> UserError:
    """The error for a repository that cannot be written to."""
    reason = first_line(error)
    return UserError(
        f"{repo} on the hub cannot be written to ({reason}): log in with `hf auth login`, or check the id."
    )


def why_unreachable() -> str | None:
    """Why the hub is not used; None if it answers, with any status."""
    if os.environ.get(_MARK) == constants.ENDPOINT:  # a parent process has tried
        return f"{constants.ENDPOINT} does not answer"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return _try(constants.ENDPOINT)


@functools.cache
def _try(endpoint: str) -> str | None:
    outcome: list[Exception | None] = []

    def request() -> None:
        try:
            get_session().head(endpoint, timeout=SECONDS)
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=request, daemon=True)  # the timeout does not cover the DNS lookup
    thread.start()
    thread.join(SECONDS)
    if outcome and outcome[0] is None:
        return None
    _go_offline(endpoint)
    error = outcome[0] if outcome else None
    reason = "no answer" if error is None else first_line(error)
    return f"{endpoint} does not answer ({reason})"


def _go_offline(endpoint: str) -> None:
    """Switches this process, and those that it starts, to the local cache."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ[_MARK] = endpoint
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True
