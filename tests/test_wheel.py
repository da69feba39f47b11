"""The wheel, as people install it: built, put into an environment of its own, and used there."""

import os
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
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
    wheel = build(source, folder)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", wheel], check=True, capture_output=True)
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python.parent


def build(source, folder, **environment):
    if shutil.which("uv"):
        words = ["uv", "build", "--wheel", "--out-dir", folder, source]
    else:
        words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, **environment})
    [wheel] = folder.glob("*.whl")
    return wheel


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


def test_what_the_image_copies_is_enough_to_install_all_of_it(installed, tmp_path):
    """As the Dockerfile does, which has no git; nobody builds the image itself in a test."""
    for line in re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE):
        for name in line.split():
            source, there = ROOT / name, tmp_path / "work" / name
            there.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(
                    source, there, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
                )
            else:
                shutil.copy(source, there)
    wheel = build(tmp_path / "work", tmp_path, SETUPTOOLS_SCM_PRETEND_VERSION="0.2.0")
    assert wheel.name.startswith("open_r1-0.2.0-")
    [packages] = (installed.parent / "lib").glob("python*/site-packages")
    there = {str(path.relative_to(packages)) for path in (packages / "open_r1").rglob("*") if path.is_file()}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("open_r1/")}
    assert packed == {name for name in there if "__pycache__" not in name}


def test_the_demo_runs_outside_the_repository(installed, tmp_path):
    done = run(installed, "open-r1", "demo", "--fast", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()
