"""Chooses the isolation for programs: the strongest one that works on this machine."""

import logging
import os
import shutil
import subprocess
from functools import lru_cache

from open_r1.errors import UserError
from open_r1.rewards.code.folders import new_folder, remove
from open_r1.rewards.code.isolation import NOBODY, Isolation, Kind, interpreter
from open_r1.rewards.code.sandbox import CannotStart, run

logger = logging.getLogger(__name__)


def candidates() -> list[Isolation]:
    """All isolations to try, from strongest to weakest."""
    users = [NOBODY, None] if os.geteuid() == 0 else [None]
    kinds: list[tuple[Kind, bool]] = [("landlock", True), ("limits", True)]
    if shutil.which("bwrap"):
        kinds = [("bubblewrap", False), ("bubblewrap", True), *kinds]
    return [Isolation(kind, user, (), shared) for kind, shared in kinds for user in users]


@lru_cache(maxsize=1)
def best_isolation() -> Isolation:
    """The strongest isolation that works here, even if it is weak. Warns if it is not bubblewrap."""
    for isolation in candidates():
        if works(isolation):
            if isolation.kind != "bubblewrap":
                logger.warning(
                    "code rewards: bubblewrap does not work here, so programs run under %s instead. docs/rewards.md "
                    "lists what this does not prevent.",
                    "Landlock and resource limits" if isolation.kind == "landlock" else "resource limits only",
                )
            return isolation
    raise UserError(
        "code rewards: programs cannot run on this machine: install bubblewrap, set TMPDIR to a folder from which "
        "other users can run programs, or set code_provider: piston."
    )


def trusted_isolation(unsafe: bool) -> Isolation:
    """The strongest isolation, for untrusted programs. Raises `UserError` if that is only resource limits, unless the
    user has allowed it (`unsafe`)."""
    isolation = best_isolation()
    if isolation.kind == "limits" and not unsafe:
        raise UserError(
            "code_provider is 'local', but neither bubblewrap nor Landlock works here, so programs could read files, "
            "expected outputs included, and use the network: install bubblewrap, set code_provider: piston, or "
            "code_provider: unsafe to run them under resource limits only."
        )
    return isolation


def works(isolation: Isolation) -> bool:
    """Whether a program with a thread, the compiler (if there is one), and a compiled program run under `isolation`."""
    folder = new_folder("check", 0o777)
    try:
        (folder / "main.py").write_text(
            "import threading\nt = threading.Thread(target=print, args=(6 * 7,))\nt.start()\n"
        )
        if run([interpreter(), "{code}/main.py"], folder, isolation=isolation).stdout != "42\n":
            return False
        compiler = shutil.which("g++")
        if compiler is None:
            return True
        (folder / "main.cpp").write_text("int main() { return 0; }\n")
        build = [os.path.realpath(compiler), "{code}/main.cpp", "-o", "{code}/program"]
        built = run(build, folder, isolation=isolation, writable=True)
        return built.status == "ok" and run(["{code}/program"], folder, isolation=isolation).status == "ok"
    except (CannotStart, subprocess.SubprocessError):
        return False
    finally:
        remove(folder)
