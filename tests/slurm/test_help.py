"""What the job scripts say outside of a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm


@pytest.fixture
def script(project):
    """A function that runs one of the scripts, without Slurm and without `slurm/site.env`."""
    (project / "slurm/site.env").unlink()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | {"PATH": path}

    def run(name, *words):
        command = ["bash", str(project / "slurm" / name), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("name", ["train.slurm", "evaluate.slurm", "generate.slurm", "serve.slurm"])
def test_help_needs_no_settings_of_the_site_and_lists_args(script, name):
    done = script(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"slurm/{name}" in done.stdout
    assert "\n  --args ..." in done.stdout


def test_help_after_args_is_that_of_the_program_and_needs_the_settings(script):
    done = script("train.slurm", "tiny", "sft", "demo", "ddp", "--args", "--help")
    assert done.returncode == 2
    assert "slurm/site.env is missing" in done.stderr
