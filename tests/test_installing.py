"""Install remedies name a command that works."""

import shlex
from pathlib import Path

import pytest

import open_r1
from open_r1 import installing
from open_r1.installing import install_command

CLONE = Path(__file__).parents[1]


def test_in_the_clone(monkeypatch):
    monkeypatch.chdir(CLONE)
    assert install_command("vllm") == 'pip install -e ".[vllm]"'


def test_elsewhere_the_clone_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert install_command("peft") == f'pip install -e ".[peft]" (in {CLONE})'


def test_without_a_clone_the_packages_are_named(monkeypatch, tmp_path):
    requirements = ["torch", 'wandb; extra == "tracking"', 'trackio>=1; extra == "tracking"', 'peft; extra == "peft"']
    monkeypatch.setattr(open_r1, "__file__", str(tmp_path / "lib/site-packages/open_r1/__init__.py"))
    monkeypatch.setattr(installing.importlib.metadata, "requires", lambda name: requirements)
    assert shlex.split(install_command("tracking")) == ["pip", "install", "wandb", "trackio>=1"]


@pytest.mark.parametrize("folder", ["src", "docs", "README.md", "README_zh.md", "examples", "slurm"])
def test_no_text_tells_to_install_from_an_index(folder):
    root = CLONE / folder
    files = [root] if root.is_file() else [p for p in root.rglob("*") if p.suffix in (".py", ".md", ".sh", ".slurm")]
    assert [
        file for file in files if "install 'open-r1[" in (text := file.read_text()) or 'install "open-r1[' in text
    ] == []
