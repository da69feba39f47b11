"""`callbacks: [push_to_hub_revision]`: pushes every checkpoint to its own branch and benchmarks it there."""

import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from open_r1.configs import TrainConfig
from open_r1.errors import UserError, first_line
from open_r1.files import link_or_copy
from open_r1.hub import create_repo

logger = logging.getLogger(__name__)

STATE = ["*.pt", "*.pth", "*.bin", "*.distcp", "global_step*", "trainer_state.json", "latest", "zero_to_fp32.py"]
"""Files of a checkpoint that only serve to resume training."""
RUN_BENCHMARKS = Path("scripts") / "run_benchmarks.py"


class PushRevision(TrainerCallback):
    """Uploads the model of each checkpoint to `<hub_revision>-step-NNNNNNNNN` of `hub_model_id`, in parallel to
    training.

    Then submits `benchmarks` for that revision to Slurm, if available. Failures are logged, and training continues.
    """

    def __init__(self, args: TrainConfig, command: Path = RUN_BENCHMARKS) -> None:
        if not args.hub_model_id or not args.hub_revision:
            raise UserError(
                "callbacks: push_to_hub_revision needs hub_model_id and hub_model_revision: the name of each "
                "checkpoint's branch is hub_model_revision plus the step."
            )
        self.args, self.command = args, command
        self._uploads = ThreadPoolExecutor(1, thread_name_prefix="push_to_hub_revision")
        self._pending: list[Future[None]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Creates the repository if necessary, before hours of work. Raises `UserError`."""
        if state.is_world_process_zero:
            create_repo(self._repo, private=True, token=self.args.hub_token)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Queues the checkpoint that was just saved."""
        if not state.is_world_process_zero:
            return
        step = state.global_step
        folder = Path(self.args.output_dir or ".")
        copy = folder / "run" / f"pushing-{step}"
        shutil.rmtree(copy, ignore_errors=True)
        checkpoint, ignored = folder / f"checkpoint-{step}", shutil.ignore_patterns(*STATE)
        try:  # links, so that the upload survives `save_total_limit`
            shutil.copytree(checkpoint, copy, copy_function=link_or_copy, ignore=ignored)
        except OSError as error:
            shutil.rmtree(copy, ignore_errors=True)
            logger.warning("%s was not pushed to %s: %s", checkpoint.name, self._repo, first_line(error))
            return
        self._pending.append(self._uploads.submit(self._push, copy, f"{self.args.hub_revision}-step-{step:09d}"))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Waits for pending uploads."""
        for upload in self._pending:
            upload.result()
        self._pending.clear()

    @property
    def _repo(self) -> str:
        return str(self.args.hub_model_id)

    def _push(self, folder: Path, revision: str) -> None:
        from huggingface_hub import create_branch, list_repo_commits, upload_folder

        token = self.args.hub_token
        try:
            first = list_repo_commits(self._repo, token=token)[-1].commit_id
            create_branch(self._repo, branch=revision, revision=first, exist_ok=True, token=token)
            upload_folder(
                repo_id=self._repo,
                folder_path=folder,
                revision=revision,
                commit_message=f"Add checkpoint {revision}",
                token=token,
            )
        except Exception as error:
            logger.warning("%s was not pushed to %s: %s", revision, self._repo, first_line(error))
            return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        logger.info("%s is on branch %s of %s.", folder.name, revision, self._repo)
        self._benchmark(revision)

    def _benchmark(self, revision: str) -> None:
        if not self.args.benchmarks:
            return
        words = ["--model-id", self._repo, "--model-revision", revision, "--benchmarks", *self.args.benchmarks]
        if shutil.which("sbatch") is None or not self.command.is_file():
            shown = " ".join(["python", str(RUN_BENCHMARKS), *words])
            logger.info("Slurm is not available here. To benchmark this checkpoint, run: %s", shown)
            return
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        command = [sys.executable, str(self.command), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            logger.warning("The benchmarks of %s were not submitted: %s", revision, done.stderr.strip())
