"""Python, CPUs, memory, disks and other tools of this machine."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from open_r1.files import free_space
from open_r1.launch.doctor.finding import Finding, gib
from open_r1.report.environment import package_versions

SHARED_MEMORY = Path("/dev/shm")
LITTLE_SHARED_MEMORY = 2**30
LITTLE_DISK = 20 * 2**30


def check_machine(folders: dict[str, Path]) -> Iterator[Finding]:
    """Everything but GPUs and hub. `folders`: where a run writes, by purpose."""
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield _packages()
    yield _memory()
    yield from shared_memory(SHARED_MEMORY)
    for name, folder in folders.items():
        yield disk(name, folder)
    yield _git_lfs()
    yield _slurm()
    yield _sandbox()


def _packages() -> Finding:
    versions = package_versions()
    absent = [name for name, version in versions.items() if version == "not installed"]
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "open_r1")
    if absent:
        return Finding(
            "packages", "problem", text, f"{' and '.join(absent)} missing: pip install -e . in the checkout."
        )
    return Finding("packages", "ok", text)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{cores} CPU cores, {gib(memory.available)} of {gib(memory.total)} memory free"
    if memory.available < 2 * 2**30:
        return Finding("memory", "note", text, "Little memory is free: close other programs first.")
    return Finding("memory", "ok", text)


def shared_memory(path: Path) -> Iterator[Finding]:
    """Nothing on systems without it."""
    if not path.is_dir():
        return
    free = shutil.disk_usage(path).free
    text = f"{gib(free)} free in {path}"
    if free < LITTLE_SHARED_MEMORY:
        remedy = "vLLM and NCCL need more: start the container with --shm-size=16g or --ipc=host."
        yield Finding("shared memory", "note", text, remedy)
    else:
        yield Finding("shared memory", "ok", text)


def disk(name: str, folder: Path) -> Finding:
    """Whether a folder, or its nearest existing parent, is writable and has free space."""
    free, existing = free_space(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding(name, "problem", f"{folder}: cannot be written to ({reason})", "Give another folder.")
    text = f"{folder}: {gib(free)} free"
    if free < LITTLE_DISK:
        return Finding(name, "note", text, "A checkpoint of a 1B model takes 16 GB: make room, or use another disk.")
    return Finding(name, "ok", text)


def _git_lfs() -> Finding:
    if shutil.which("git-lfs") is None:
        return Finding(
            "git-lfs", "note", "not installed", "You need it only to clone repositories by hand: apt install git-lfs."
        )
    return Finding("git-lfs", "ok", _first_line("git-lfs", "version"))


def _slurm() -> Finding:
    if shutil.which("sbatch") is None:
        return Finding("slurm", "ok", "not on this machine; only slurm/*.slurm need it")
    version = _first_line("sbatch", "--version")
    if "error" in version:
        version = "installed, not configured"
    if job := os.environ.get("SLURM_JOB_ID"):
        return Finding("slurm", "ok", f"{version}, in job {job} on {os.environ.get('SLURM_JOB_NUM_NODES', '1')} nodes")
    controller = _run("sinfo", "--noheader")
    if controller is None or controller.returncode != 0:
        return Finding(
            "slurm",
            "note",
            f"{version}, but no controller answers",
            "Only slurm/*.slurm need it: ask the administrator of the cluster.",
        )
    return Finding("slurm", "ok", version)


def _sandbox() -> Finding:
    from open_r1.rewards.code.choose import best_isolation

    kind = best_isolation().kind
    if kind == "bubblewrap":
        return Finding("sandbox", "ok", "bubblewrap isolates programs of code rewards")
    return Finding(
        "sandbox",
        "note",
        "no bubblewrap: Landlock isolates programs of code rewards"
        if kind == "landlock"
        else "neither bubblewrap nor Landlock: code rewards refuse to run programs here",
        "apt install bubblewrap, and allow user namespaces.",
    )


def _first_line(*words: str) -> str:
    done = _run(*words)
    return (done.stdout or done.stderr).strip().split("\n")[0] if done else f"{words[0]} does not answer"


def _run(*words: str) -> subprocess.CompletedProcess[str] | None:
    """None if the program is not there or does not end."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
