"""How commands end, also when the reader of their output leaves."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from open_r1.errors import UserError
from open_r1.run import entry

PROGRAM = """
import logging, sys
from pathlib import Path
from rich.console import Console
from open_r1.run.entry import exit_with_sentence

def main():
    print("first", flush=True)
    sys.stdin.read()                      # until the reader has left
    console = Console()
    for i in range(2000):
        print("line", i)
        console.print("rich", i)
        print("error", i, file=sys.stderr)
        logging.warning("log %d", i)
    ENDING
    Path(sys.argv[1]).write_text("done")

exit_with_sentence(main)
"""


def run_and_leave(
    program: str, *words: str, flags: tuple[str, ...] = (), stderr: int = subprocess.PIPE
) -> tuple[int, str]:
    """Exit status and errors of a program whose reader leaves after the first line."""
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", program, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "first\n"
    process.stdout.close()
    process.stdin.close()
    errors = process.stderr.read() if process.stderr is not None else ""
    return process.wait(timeout=60), errors


@pytest.mark.parametrize("flags", [(), ("-u",)])
def test_the_work_is_done_without_a_reader(tmp_path, flags):
    status, errors = run_and_leave(PROGRAM.replace("ENDING", ""), str(tmp_path / "result"), flags=flags)
    assert (tmp_path / "result").read_text() == "done"
    assert status == 0 and "BrokenPipe" not in errors


def test_both_streams_may_lose_their_reader(tmp_path):
    status, _ = run_and_leave(PROGRAM.replace("ENDING", ""), str(tmp_path / "result"), stderr=subprocess.STDOUT)
    assert (status, (tmp_path / "result").read_text()) == (0, "done")


@pytest.mark.parametrize(
    ("ending", "status"),
    [("raise BrokenPipeError('of a worker')", 1), ("from open_r1.errors import UserError; raise UserError('no')", 2)],
)
def test_what_fails_without_a_reader_is_no_success(tmp_path, ending, status):
    assert run_and_leave(PROGRAM.replace("ENDING", ending), str(tmp_path / "result"))[0] == status
    assert not (tmp_path / "result").exists()


def test_the_usage_can_be_cut_short():
    shell = f"{sys.executable} -m open_r1.cli --help | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        ("UserError('max_steps is 0.')", 2, "error: max_steps is 0."),
        ("Interrupted('Stopped after step 3.')", 75, "Stopped after step 3."),
        ("KeyboardInterrupt()", 130, "Interrupted. Run the same command"),
        ("KeyboardInterrupt('Ended at once.')", 130, "Ended at once."),
        ("OSError(28, 'Error writing bytes')", 2, "error: No space left on device. Make room, and run"),
        ("OSError(30, 'x', 'runs/a')", 2, "error: runs/a: Read-only file system. Use another path, or make"),
        ("PermissionError(13, 'x', 'runs/a')", 2, "error: runs/a: Permission denied. Use another path, or change its"),
        ("PermissionError(1, 'no signal to that process')", 1, "Traceback"),
        ("PermissionError(13, 'no such port for you')", 1, "Traceback"),
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


def test_a_command_that_is_out_of_gpu_memory_ends_in_a_sentence(monkeypatch, capsys):
    class OutOfMemoryError(RuntimeError):
        """As torch's is named."""

    def main():
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    monkeypatch.setattr(entry, "survive_broken_pipes", lambda: None)
    with pytest.raises(SystemExit) as end:
        entry.exit_with_sentence(main)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: out of GPU memory outside of training (CUDA out of memory. Tr")


@pytest.mark.parametrize(
    "reason", ["[/a/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1: reset. Typical.", "x"]
)
def test_a_lost_process_of_the_group_is_one_sentence_whichever_backend_says_so(reason, capsys, monkeypatch):
    kind = RuntimeError if "gloo" in reason else type("DistBackendError", (RuntimeError,), {})

    def main():
        raise kind(reason)

    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit) as end:
        entry.exit_with_sentence(main)
    said = "Read error [127.0.0.1]:1: reset." if "gloo" in reason else "x."
    assert end.value.code == 76
    assert capsys.readouterr().err == (
        f"training process 3 lost the connection to another one, which has ended or hangs: {said}\n"
    )


def test_processes_of_one_node_print_the_same_error_once(tmp_path, capsys, monkeypatch):
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
    for rank, message in ((0, "a"), (1, "a"), (1, "b")):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / f"{rank}/error.json"))
        with pytest.raises(SystemExit):
            entry.exit_with_sentence(partial(fail, message))
    assert capsys.readouterr().err == "error: a\nerror: b\n"


def fail(message):
    raise UserError(message)
