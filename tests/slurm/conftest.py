"""A cluster for all tests here, and a project folder that jobs are submitted from."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from slurm_cluster import Cluster, lacking

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster():
    if absent := lacking():
        pytest.fail(f"{', '.join(absent)} not found: make test-slurm installs Slurm.")
    folder = Path(tempfile.mkdtemp(prefix="open_r1-slurm-"))  # short: the path of a socket has its limits
    running = Cluster(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


@pytest.fixture
def project(tmp_path):
    """What a user has after cloning and filling in `slurm/site.env`, with a recipe or two of the tests' own."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copytree(ROOT / "slurm", folder / "slurm", ignore=shutil.ignore_patterns("site.env"))
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "logs").mkdir()
    (folder / "slurm/site.env").write_text(f"export OPEN_R1_ENVIRONMENT={sys.prefix}\n")
    return folder
