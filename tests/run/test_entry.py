"""How commands end."""

import subprocess
import sys

import pytest

WORKS_ON = """
import sys
from open_r1.run.entry import exit_with_sentence

def main():
    for i in range(100_000):
        print("line", i, flush=i % 100 == 0)
        print("note", i, file=sys.stderr)
    open(sys.argv[1], "w").write("the model")

exit_with_sentence(main)
"""


@pytest.mark.parametrize("flags", ["", "-u"])
def test_work_goes_on_when_the_reader_of_its_output_leaves(tmp_path, flags):
    (tmp_path / "work.py").write_text(WORKS_ON)
    command = f"{sys.executable} {flags} work.py model 2>&1 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0"
    assert (tmp_path / "model").read_text() == "the model"


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        ("UserError('max_steps is 0.')", 2, "error: max_steps is 0."),
        ("Interrupted('Stopped after step 3.')", 75, "Stopped after step 3."),
        ("KeyboardInterrupt()", 130, "Interrupted. The same command"),
        ("KeyboardInterrupt('Ended at once.')", 130, "Ended at once."),
        ("BrokenPipeError('a pipe of somebody else')", 1, "BrokenPipeError"),
    ],
)
def test_an_end_before_the_end_is_a_sentence_and_never_status_0(raised, status, said):
    code = f"""
from open_r1.errors import Interrupted, UserError
from open_r1.run.entry import exit_with_sentence

def main():
    raise {raised}

exit_with_sentence(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert said in done.stderr
