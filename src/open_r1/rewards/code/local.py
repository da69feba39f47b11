"""Programs in the sandbox of this machine."""

import os
import queue
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from open_r1.errors import UserError
from open_r1.rewards.code.choose import trusted_isolation
from open_r1.rewards.code.isolation import Isolation
from open_r1.rewards.code.programs import LANGUAGES, Language, Program
from open_r1.rewards.code.sandbox import CannotStart, Limits, Outcome, Sandbox

COMPILE = Limits(seconds=10, memory_mb=1024)
"""Of a compiler: hostile sources cost no more than that."""


class CompileError(Exception):
    """The program does not compile."""


class LocalProvider:
    """The sandbox of this machine; with `unsafe` also where nothing but resource limits can be had."""

    def __init__(self, unsafe: bool = False) -> None:
        self.unsafe = unsafe

    @property
    def languages(self) -> frozenset[str]:
        """Those that are known."""
        return frozenset(LANGUAGES)

    @contextmanager
    def open(self, program: Program, limits: Limits) -> Iterator[Callable[[str], Outcome]]:
        """A function from stdin to outcome. Its sandboxes are kept for further runs of the same program."""
        language = LANGUAGES[program.language]
        isolation = replace(trusted_isolation(self.unsafe), read_only=language.folders)
        with tempfile.TemporaryDirectory(prefix="program-") as name, ExitStack() as opened:
            folder = Path(name)
            folder.chmod(0o755)
            for file_name, text in program.files.items():
                path = folder / Path(file_name).name
                path.write_text(text, errors="replace")
                path.chmod(0o644)
            if language.compile:
                _compile(folder, language, isolation)
            command = _found(language.run, language)
            free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()

            def run(stdin: str) -> Outcome:
                try:
                    sandbox = free.get_nowait()
                except queue.Empty:
                    sandbox = opened.enter_context(Sandbox(folder, isolation, limits.memory_mb))
                try:
                    return sandbox.run(command, stdin, limits, forked=program.language == "python")
                except CannotStart as error:
                    raise UserError(f"code rewards: the sandbox does not start any more: {error}.") from None
                finally:
                    free.put(sandbox)

            yield run


def _compile(folder: Path, language: Language, isolation: Isolation) -> None:
    folder.chmod(0o777)
    ending = Path(language.main).suffix
    sources = tuple(f"{{code}}/{path.name}" for path in sorted(folder.glob(f"*{ending}")))
    parts = [(part,) if part != "{sources}" else sources for part in language.compile]
    command = _found(tuple(word for words in parts for word in words), language)
    with Sandbox(folder, isolation, COMPILE.memory_mb, writable=True) as sandbox:
        outcome = sandbox.run(command, limits=COMPILE)
    folder.chmod(0o755)
    if outcome.status != "ok":
        raise CompileError(outcome.status)


def _found(command: tuple[str, ...], language: Language) -> list[str]:
    """`command` with the path of its program, links resolved. Raises `UserError` if this machine lacks it."""
    first, *rest = command
    if first.startswith("{code}"):
        return list(command)
    path = shutil.which(first)
    if path is None:
        raise UserError(
            f"code rewards: a program in {language.name} needs {first} on this machine, or code_provider: piston."
        )
    return [os.path.realpath(path), *rest]
