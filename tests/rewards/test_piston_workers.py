"""Piston workers under Slurm: what is submitted, and how the rewards find them; Slurm's commands are stand-ins."""

import os
import subprocess
import urllib.error
from pathlib import Path

import pytest

from open_r1.errors import UserError
from open_r1.rewards.code import providers
from open_r1.rewards.code.piston_workers import slurm_endpoints
from open_r1.rewards.code.rewards import code_reward

FOLDER = Path(__file__).parents[2] / "slurm" / "piston"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Makes a command that stands before all others of its name."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    return make


def launch(*words):
    return subprocess.run(["bash", FOLDER / "launch_piston_workers.sh", *words], capture_output=True, text=True)


def test_each_worker_is_a_job_named_after_its_port(command):
    command("sbatch", 'echo "$@"')
    lines = launch("3").stdout.splitlines()
    assert len(lines) == 3
    ports = {line.split("PORT=")[1].split()[0] for line in lines}
    assert len(ports) == 3
    for port in ports:
        assert any(f"--job-name=piston-worker-{port} --export=ALL,PORT={port} " in line for line in lines)
    assert all(line.endswith("slurm/piston/launch_single_piston.sh") for line in lines)


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_number_of_workers_is_needed(count):
    done = launch(count)
    assert done.returncode == 2
    assert f"'{count}'" in done.stderr


def test_a_worker_mounts_its_packages_and_raises_the_size_of_requests(command, tmp_path):
    command("srun", 'printf "%s\\n" "$@"; echo "port $PORT"')
    done = subprocess.run(
        ["bash", FOLDER / "launch_single_piston.sh"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PORT": "2345", "PISTON_PACKAGES": str(tmp_path / "packages")},
    )
    assert f"{tmp_path}/packages:/piston/packages" in done.stdout
    assert "engineer-man/piston" in done.stdout
    assert "512mb" in done.stdout
    assert "port 2345" in done.stdout
    assert (tmp_path / "packages").is_dir()


def test_the_rewards_find_running_workers(command, monkeypatch):
    running = 'printf "piston-worker-2001 node1\\nopen_r1-train node2\\npiston-worker-2002 node3\\n"'
    command("squeue", f'{running}\n[[ " $* " == *" --states=RUNNING "* ]] || echo "piston-worker-2003 node4"')
    assert slurm_endpoints() == ["http://node1:2001/api/v2", "http://node3:2002/api/v2"]


def test_workers_are_looked_for_once_and_used_in_turn_by_all_calls(command, monkeypatch, tmp_path):
    command(
        "squeue", f'echo x >> {tmp_path}/asked; printf "piston-worker-1 a\\npiston-worker-2 b\\npiston-worker-3 c\\n"'
    )
    monkeypatch.setenv("PISTON_ENDPOINTS", "slurm")
    used = []
    monkeypatch.setattr(providers, "_post", lambda url, body: used.append(url) or {"run": {"stdout": "1", "code": 0}})
    providers._piston.cache_clear()
    info = [{"test_cases": [{"input": "", "output": "1"}]}]
    for number in range(6):
        assert code_reward([f"```python\nprint({number})\n```"], info, provider_type="piston") == [1.0]
    assert used == [f"http://{worker}/api/v2/execute" for worker in ("a:1", "b:2", "c:3")] * 2
    assert (tmp_path / "asked").read_text() == "x\n"


def test_workers_are_looked_for_again_when_one_is_gone(command, monkeypatch, tmp_path):
    command("squeue", f"cat {tmp_path}/running")
    (tmp_path / "running").write_text("piston-worker-1 a\n")
    monkeypatch.setattr(providers.time, "sleep", lambda seconds: None)
    provider = providers.PistonProvider("slurm")

    def post(url, body):
        if url.startswith("http://a:"):
            raise urllib.error.URLError("gone")
        return {"run": {"stdout": url, "code": 0}}

    monkeypatch.setattr(providers, "_post", post)
    (tmp_path / "running").write_text("piston-worker-2 b\n")
    assert provider.execute({})["run"]["stdout"] == "http://b:2/api/v2/execute"


@pytest.mark.parametrize(
    ("script", "says"), [("echo", "no job named piston-worker"), ("exit 1", "squeue does not answer")]
)
def test_no_workers_is_said(command, script, says):
    command("squeue", script)
    with pytest.raises(UserError, match=says):
        slurm_endpoints()
