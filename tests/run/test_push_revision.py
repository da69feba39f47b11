"""`callbacks: push_to_hub_revision` against a hub that notes what it gets."""

import errno
import json
import logging
from types import SimpleNamespace

import pytest
from runs import arguments, make_folder

from open_r1 import sft
from open_r1.errors import UserError
from open_r1.run import push_revision


class FakeHub:
    """Branches of a repository, each with the files that were uploaded to it."""

    def __init__(self, monkeypatch, fails_at=""):
        self.branches, self.fails_at = {"main": set()}, fails_at
        monkeypatch.setattr("open_r1.hub.why_unreachable", lambda: None)
        for name in ("create_repo", "create_branch", "list_repo_commits", "upload_folder"):
            monkeypatch.setattr(f"huggingface_hub.{name}", getattr(self, name))

    def create_repo(self, repo, private, exist_ok, token):
        assert private and exist_ok
        self.repo = repo

    def list_repo_commits(self, repo, token):
        return [SimpleNamespace(commit_id="newest"), SimpleNamespace(commit_id="first")]

    def create_branch(self, repo, branch, revision, exist_ok, token):
        assert (repo, revision) == (self.repo, "first")
        self.branches[branch] = set()

    def upload_folder(self, repo_id, folder_path, revision, commit_message, token):
        if self.fails_at and revision.endswith(self.fails_at):
            raise OSError("connection lost")
        self.branches[revision] |= {path.name for path in folder_path.rglob("*")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("toy"))
    rows = [{"problem": "1 + 1?", "answer": "2"}]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


PUSH = {"callbacks": "push_to_hub_revision", "hub_model_id": "me/toy", "hub_model_revision": "v01.00"}
SAVE = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}


def train(folder, out, **options):
    sft.main(arguments(folder, "sft", out, **{**PUSH, **SAVE, **options}))


def test_each_checkpoint_has_a_branch_with_the_model_alone(folder, tmp_path, monkeypatch):
    hub = FakeHub(monkeypatch)
    train(folder, tmp_path / "out")
    assert set(hub.branches) == {"main", "v01.00-step-000000002", "v01.00-step-000000004"}
    for branch in ("v01.00-step-000000002", "v01.00-step-000000004"):
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= hub.branches[branch]
        assert not any(name.endswith(".pt") for name in hub.branches[branch])
    assert hub.branches["main"] == set()
    assert not list((tmp_path / "out" / "run").glob("pushing-*"))


def test_a_lost_connection_costs_a_branch_and_not_the_run(folder, tmp_path, monkeypatch, caplog):
    hub = FakeHub(monkeypatch, fails_at="2")
    train(folder, tmp_path / "out")
    assert "v01.00-step-000000002 was not pushed to me/toy: connection lost" in caplog.text
    assert "model.safetensors" in hub.branches["v01.00-step-000000004"]


def test_a_checkpoint_that_cannot_be_copied_costs_a_branch_and_not_the_run(tmp_path, monkeypatch, caplog):
    hub = FakeHub(monkeypatch)
    monkeypatch.setattr(push_revision.shutil, "copytree", full_disk)
    callback(tmp_path, tmp_path / "none.py")
    assert "checkpoint-8 was not pushed to me/toy: [Errno 28] No space left" in caplog.text
    assert set(hub.branches) == {"main"}


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_hub_that_refuses_is_said_before_training(folder, tmp_path, monkeypatch):
    hub = FakeHub(monkeypatch)

    def refuse(*args, **options):
        raise OSError("401 unauthorized")

    monkeypatch.setattr("huggingface_hub.create_repo", refuse)
    with pytest.raises(UserError, match=r"me/toy on the hub cannot be written to \(401 unauthorized\)"):
        train(folder, tmp_path / "out")
    assert set(hub.branches) == {"main"}


def test_a_branch_is_needed(folder, tmp_path):
    words = arguments(folder, "sft", tmp_path / "out", callbacks="push_to_hub_revision", hub_model_id="me/toy")
    with pytest.raises(UserError, match="hub_model_revision"):
        sft.main(words)


def callback(tmp_path, command):
    args = SimpleNamespace(
        hub_model_id="me/toy",
        hub_revision="v1",
        hub_token=None,
        output_dir=str(tmp_path),
        benchmarks=["lcb_v4", "gsm8k"],
    )
    (tmp_path / "checkpoint-8").mkdir()
    (tmp_path / "checkpoint-8" / "model.safetensors").write_text("weights")
    pushing = push_revision.PushRevision(args, command)
    state = SimpleNamespace(is_world_process_zero=True, global_step=8)
    pushing.on_train_begin(args, state, None)
    pushing.on_save(args, state, None)
    pushing.on_train_end(args, state, None)


def test_benchmarks_of_the_branch_are_submitted_to_slurm(tmp_path, monkeypatch):
    FakeHub(monkeypatch)
    monkeypatch.setattr(push_revision.shutil, "which", lambda name: "/usr/bin/sbatch")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    script = tmp_path / "run_benchmarks.py"
    script.write_text(
        "import os, sys, pathlib\n"
        "pathlib.Path(__file__).with_suffix('.txt').write_text(' '.join(sys.argv[1:]) + os.getenv('SLURM_JOB_ID', ''))"
    )
    callback(tmp_path, script)
    words = "--model-id me/toy --model-revision v1-step-000000008 --benchmarks lcb_v4 gsm8k"
    assert script.with_suffix(".txt").read_text() == words


def test_without_slurm_the_command_is_shown(tmp_path, monkeypatch, caplog):
    FakeHub(monkeypatch)
    monkeypatch.setattr(push_revision.shutil, "which", lambda name: None)
    with caplog.at_level(logging.INFO):
        callback(tmp_path, tmp_path / "run_benchmarks.py")
    assert "scripts/run_benchmarks.py --model-id me/toy --model-revision v1-step-000000008" in caplog.text
