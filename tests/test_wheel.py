"""The wheel, as people install it: built, put into an environment of its own, and used there."""

import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """`bin/` of an environment with the wheel in it; what the wheel depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(".venv*", "runs", "build", "*.egg-info"))
    if shutil.which("uv"):
        build = ["uv", "build", "--wheel", "--out-dir", folder, source]
    else:
        build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--no-deps", wheel], check=True, capture_output=True)
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python.parent


def run(installed, *words, cwd):
    environment = {
        "PATH": f"{installed}:/usr/bin:/bin",
        "HOME": str(cwd),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_code_is_that_of_the_wheel_and_knows_its_version(installed, tmp_path):
    code = "import open_r1; print(open_r1.__file__, open_r1.__version__)"
    file, version = run(installed, "python", "-c", code, cwd=tmp_path).stdout.split()
    assert str(installed.parent) in file
    assert run(installed, "open-r1", "--version", cwd=tmp_path).stdout == f"open-r1 {version}\n"
    assert version[0].isdigit()


def test_the_demo_runs_outside_the_repository(installed, tmp_path):
    done = run(installed, "open-r1", "demo", "--fast", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()
