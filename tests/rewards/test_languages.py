"""Languages that are declared by a compiler and a command."""

import shutil

import pytest

from open_r1.errors import UserError
from open_r1.rewards.code.isolation import interpreter
from open_r1.rewards.code.programs import declare
from open_r1.rewards.code.rewards import code_reward


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_language_is_declared_by_a_compiler_and_a_command(languages):
    declare("c | main.c | gcc -O1 -o {code}/program {code}/main.c | {code}/program")
    declare("shell | main.sh | | sh {code}/main.sh")
    c = '```c\n#include <stdio.h>\nint main() { int a; scanf("%d", &a); printf("%d", a + 1); }\n```'
    shell = "```shell\nread a\necho $((a + 1))\n```"
    cases = [{"input": "4\n", "output": "5"}, {"input": "6\n", "output": "7"}]
    info = [{"language": name, "test_cases": cases} for name in ("c", "shell")]
    assert code_reward([c, shell], info) == [1.0, 1.0]


def test_a_language_that_is_not_written_as_it_should_is_named():
    with pytest.raises(UserError, match="code_languages has 'rust': write a language as"):
        declare("rust")


def test_a_declared_language_may_reserve_address_space_but_not_use_the_memory(languages):
    declare(f"managed | main.py | | {interpreter()} {{code}}/main.py")
    reserve = "import mmap\nheld = mmap.mmap(-1, 2 << 30, mmap.MAP_PRIVATE)\nprint(int(input()) + 1)"
    use = reserve.replace("print", "for page in range(0, 1 << 30, 4096): held[page] = 1\nprint")
    info = [{"language": "managed", "test_cases": [{"input": "4\n", "output": "5"}]}] * 2
    assert code_reward([f"```managed\n{source}\n```" for source in (reserve, use)], info) == [1.0, 0.0]
