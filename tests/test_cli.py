import subprocess
import sys

import pytest

import open_r1
from open_r1 import cli


def python(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)


def test_nothing_heavy_is_imported_before_a_command_needs_it():
    heavy = "('torch', 'transformers', 'datasets', 'rich', 'numpy')"
    code = "import sys, open_r1, open_r1.cli; open_r1.cli.main(['--help']); "
    code += f"print('HEAVY', [m for m in {heavy} if m in sys.modules])"
    done = python("-c", code)
    assert "usage: open-r1" in done.stdout
    assert done.stdout.strip().endswith("HEAVY []")


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"open-r1 {open_r1.__version__}\n"
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in cli.COMMANDS)
    assert cli.main([]) == 2


def test_an_unknown_command_is_named(capsys):
    assert cli.main(["gpro"]) == 2
    assert "'gpro'" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"open-r1 {command} " in capsys.readouterr().out


def test_what_a_user_can_mend_ends_in_a_sentence_and_status_2(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["grpo", "--learning_rat", "1e-6"])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "learning_rate" in message
    assert "Traceback" not in message


def test_scripts_run_as_files():
    done = python("src/open_r1/sft.py", "--model_name_or_path", "/nowhere/at/all", "--dataset_name", "x.jsonl")
    assert done.returncode == 2
    assert done.stderr == "error: x.jsonl: there is no such file or folder.\n"
    assert "Traceback" not in done.stderr
