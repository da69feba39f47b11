"""Programs in completions, and how each language is built and run."""

import re
from dataclasses import dataclass

_FENCES = {"python": r"python3?|py", "cpp": r"cpp|c\+\+|cc|cpp17"}
_SAME = {"py": "python", "python3": "python", "c++": "cpp", "cc": "cpp", "cpp17": "cpp", "c++17": "cpp"}

COMPILE = {"cpp": ["g++", "-O2", "-std=c++17", "-I{code}", "-o", "{code}/program"]}
MAIN = {"python": "main.py", "cpp": "main.cpp"}


@dataclass(frozen=True)
class Program:
    """Source files by name; `main` is the one that is run (Python). All `.cpp` files are compiled together."""

    language: str
    files: dict[str, str]


def language_name(language: str) -> str:
    """One name for each language: `python` for `Python3`, `cpp` for `C++`."""
    language = language.strip().lower()
    return _SAME.get(language, language)


def extract_code(completion: str, language: str = "python") -> str:
    """The last fenced block of `language` behind the reasoning, "" if there is none."""
    language = language_name(language)
    fence = _FENCES.get(language, re.escape(language))
    said = completion.rpartition("</think>")[2]
    if "<think>" in said:
        return ""  # reasoning that never ended
    blocks = re.findall(rf"```(?:{fence})[ \t]*\n(.*?)```", said, re.DOTALL)
    return blocks[-1] if blocks else ""


def program(source: str, language: str) -> Program:
    """A program of one file."""
    language = language_name(language)
    return Program(language, {MAIN.get(language, "main.txt"): source})


def with_includes(source: str, problem_id: str) -> str:
    """C++ of an IOI answer with the headers that it may have left out: the standard ones, and the problem's."""
    if not source:
        return ""
    head = [] if "bits/stdc++.h" in source else ["#include <bits/stdc++.h>"]
    if f'"{problem_id}.h"' not in source:
        head.append(f'#include "{problem_id}.h"')
    if "using namespace std;" not in source:
        head.append("using namespace std;")
    return "\n".join([*head, source])
