"""Runs programs in the sandbox of this machine."""

import atexit
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from open_r1.errors import UserError
from open_r1.rewards.code.folders import new_folder, remove
from open_r1.rewards.code.inside import clean
from open_r1.rewards.code.isolation import Isolation
from open_r1.rewards.code.programs import LANGUAGES, Language, Program
from open_r1.rewards.code.sandbox import CannotStart, Limits, Outcome, Sandbox
from open_r1.rewards.pool import cores

COMPILE = Limits(seconds=10, memory_mb=1024)
"""Limits of a compiler, which bound what hostile source code can cost."""


class CompileError(Exception):
    """The program does not compile."""


class LocalProvider:
    """The sandbox of this machine, with `isolation`."""

    def __init__(self, isolation: Isolation) -> None:
        self.isolation = isolation

    @property
    def languages(self) -> frozenset[str]:
        """All known languages."""
        return frozenset(LANGUAGES)

    @contextmanager
    def open(self, program: Program, limits: Limits) -> Iterator[Callable[[str], Outcome]]:
        """As in `Provider`. A sandbox is used again, for other tests and other programs, if nothing is left in it.

        Concurrent tests get further sandboxes, at most one per core in total, whatever the number of programs.
        """
        language = LANGUAGES[program.language]
        isolation = replace(self.isolation, read_only=(*language.folders, *program.folders))
        limits = replace(limits, address_space=language.address_space)
        with ExitStack() as opened:
            room = _rooms.take(isolation, limits.memory_mb)
            opened.callback(_rooms.give, room)
            for file_name, text in program.files.items():
                path = room.folder / Path(file_name).name
                path.write_text(text, errors="replace")
                path.chmod(0o644)
            if language.compile:
                _compile(room.folder, language, isolation)
            command = _found(language.run, language)
            free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
            free.put(room.sandbox)

            def run(stdin: str) -> Outcome:
                try:
                    sandbox = free.get_nowait()
                except queue.Empty:
                    if _rooms.more.acquire(blocking=False):
                        opened.callback(_rooms.more.release)
                        sandbox = opened.enter_context(Sandbox(room.folder, isolation, limits.memory_mb))
                    else:
                        sandbox = free.get()
                try:
                    with _explain_start():
                        return sandbox.run(command, stdin, limits, forked=program.language == "python")
                finally:
                    free.put(sandbox)

            yield run


@contextmanager
def _explain_start() -> Iterator[None]:
    try:
        yield
    except CannotStart as error:
        raise UserError(f"code rewards: the sandbox no longer starts: {error}.") from None


@dataclass(frozen=True)
class Room:
    """A folder for a program, and a sandbox that can read it."""

    folder: Path
    sandbox: Sandbox


class Rooms:
    """Idle sandboxes, which wait for the next program. Only those in which nothing is left are kept."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Starts empty, without closing anything: a forked child must not use its parent's sandboxes."""
        self._lock = threading.Lock()
        self.more = threading.Semaphore(cores())
        self._waiting: dict[tuple[Isolation, int], list[Room]] = {}

    def take(self, isolation: Isolation, memory_mb: int) -> Room:
        """A room with an empty folder."""
        with self._lock:
            if waiting := self._waiting.get((isolation, memory_mb)):
                return waiting.pop()
        folder = new_folder("program", 0o755)
        return Room(folder, Sandbox(folder, isolation, memory_mb))

    def give(self, room: Room) -> None:
        """Takes a room back, and keeps or closes it."""
        if room.sandbox.reusable:
            clean(str(room.folder), 0o755)
            with self._lock:
                waiting = self._waiting.setdefault((room.sandbox.isolation, room.sandbox.memory_mb), [])
                if len(waiting) < cores():
                    waiting.append(room)
                    return
        self._end(room)

    def close(self) -> None:
        """Closes all idle sandboxes."""
        for waiting in self._waiting.values():
            while waiting:
                self._end(waiting.pop())

    def _end(self, room: Room) -> None:
        room.sandbox.close()
        remove(room.folder)


_rooms = Rooms()


def close_sandboxes() -> None:
    """Closes the idle sandboxes."""
    _rooms.close()


def limit_sandboxes(number: int) -> None:
    """Gives concurrent tests up to `number` sandboxes in addition to one per program."""
    _rooms.more = threading.Semaphore(number)


atexit.register(close_sandboxes)
os.register_at_fork(after_in_child=_rooms.forget)


def _compile(folder: Path, language: Language, isolation: Isolation) -> None:
    folder.chmod(0o777)
    ending = Path(language.main).suffix
    sources = tuple(f"{{code}}/{path.name}" for path in sorted(folder.glob(f"*{ending}")))
    parts = [(part,) if part != "{sources}" else sources for part in language.compile]
    command = _found(tuple(word for words in parts for word in words), language)
    with Sandbox(folder, isolation, COMPILE.memory_mb, writable=True) as sandbox, _explain_start():
        outcome = sandbox.run(command, limits=replace(COMPILE, address_space=language.address_space))
    folder.chmod(0o755)
    if outcome.status != "ok":
        raise CompileError(outcome.status)


def _found(command: tuple[str, ...], language: Language) -> list[str]:
    """`command` with the full path of its program, links resolved. Raises `UserError` if this machine lacks it."""
    first, *rest = command
    if first.startswith("{code}"):
        return list(command)
    path = shutil.which(first)
    if path is None:
        raise UserError(
            f"code rewards: a program in {language.name} needs {first} on this machine, or code_provider: piston."
        )
    return [os.path.realpath(path), *rest]
