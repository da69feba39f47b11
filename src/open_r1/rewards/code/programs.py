"""Extracts programs from completions, and describes how each language is compiled and run."""

import re
import shlex
from dataclasses import dataclass

from open_r1.errors import UserError
from open_r1.rewards.code.isolation import interpreter

_SAME = {"py": "python", "python3": "python", "c++": "cpp", "cc": "cpp", "cpp17": "cpp", "c++17": "cpp"}


@dataclass(frozen=True)
class Language:
    """How programs in a language are compiled and run.

    `main` is the name of a program with one file. `compile` (may be empty) and `run` are commands, in which `{code}` is
    the program's folder and `{sources}` all its files with the suffix of `main`. `folders` are further folders that
    programs may read, for a compiler or interpreter outside `/usr`. `address_space` says whether the memory limit also
    applies to the address space; it must not for runtimes that reserve more than they use (JavaScript, Java).
    """

    name: str
    main: str
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    fence: str = ""
    """Regular expression for the language after the three backquotes of a code block. "": its name."""
    address_space: bool = True


LANGUAGES: dict[str, Language] = {
    "python": Language("python", "main.py", (interpreter(), "{code}/main.py"), fence="python3?|py"),
    "cpp": Language(
        "cpp",
        "main.cpp",
        ("{code}/program",),
        ("g++", "-O2", "-std=c++17", "-I{code}", "-o", "{code}/program", "{sources}"),
        fence=r"cpp|c\+\+|cc|cpp17",
    ),
}
"""Languages that this machine's sandbox runs. `declare` adds more."""


def declare(text: str) -> Language:
    """Adds a language, written as `name | main file | compile command | run command | folders`. The compile command may
    be empty, the folders may be missing. Raises `UserError` for anything else."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) not in (4, 5) or not (parts[0] and parts[1] and parts[3]) or "/" in parts[1]:
        raise UserError(
            f"code_languages has {text!r}: write a language as 'name | main file | compile command | "
            "run command', such as 'c | main.c | gcc -O2 -o {code}/program {code}/main.c -lm | {code}/program'."
        )
    name = language_name(parts[0])
    folders = tuple(parts[4].split()) if len(parts) == 5 else ()
    language = Language(
        name, parts[1], tuple(shlex.split(parts[3])), tuple(shlex.split(parts[2])), folders, address_space=False
    )
    LANGUAGES[name] = language
    return language


@dataclass(frozen=True)
class Program:
    """Source files by name; C++ files are compiled together. `folders` are further folders that it may read."""

    language: str
    files: dict[str, str]
    folders: tuple[str, ...] = ()


def language_name(language: str) -> str:
    """The canonical name of a language: `python` for `Python3`, `cpp` for `C++`."""
    language = language.strip().lower()
    return _SAME.get(language, language)


def extract_code(completion: str, language: str = "python") -> str:
    """The last fenced block of `language` after the reasoning; "" if there is none."""
    language = language_name(language)
    known = LANGUAGES.get(language)
    fence = known.fence if known and known.fence else re.escape(language)
    answer = completion.rpartition("</think>")[2]
    if "<think>" in answer:
        return ""  # reasoning that never ended
    blocks = re.findall(rf"```(?:{fence})[ \t]*\n(.*?)```", answer, re.DOTALL)
    return blocks[-1] if blocks else ""


def program(source: str, language: str) -> Program:
    """A program with one file."""
    language = language_name(language)
    known = LANGUAGES.get(language)
    return Program(language, {known.main if known else "main.txt": source})


def with_includes(source: str, problem_id: str) -> str:
    """The C++ of an IOI answer, with the standard headers and the problem's header if they are missing."""
    if not source:
        return ""
    head = [] if "bits/stdc++.h" in source else ["#include <bits/stdc++.h>"]
    if f'"{problem_id}.h"' not in source:
        head.append(f'#include "{problem_id}.h"')
    if "using namespace std;" not in source:
        head.append("using namespace std;")
    return "\n".join([*head, source])
