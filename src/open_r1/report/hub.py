"""Datasets to the hub."""

from pathlib import Path

from open_r1.errors import UserError, first_line
from open_r1.hub import blocked, why_unreachable

NOT_PUSHED = ["run/journal.jsonl", "run/.lock", "**/.lock", "*.tmp", "**/*.tmp"]


def create_dataset_repo(repo: str, private: bool) -> None:
    """Makes sure that `repo` is there and may be written to, before hours of work. Raises `UserError`."""
    if reason := why_unreachable():
        raise UserError(blocked(f"{repo} on the hub cannot be written to", reason))
    from huggingface_hub import create_repo
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise _refused(repo, error) from error


def push_dataset(folder: Path, repo: str) -> str:
    """Uploads a dataset folder (shards, card, settings); returns where it is. Raises `UserError`."""
    from huggingface_hub import upload_folder
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return str(upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder, ignore_patterns=NOT_PUSHED))
    except (HfHubHTTPError, OSError) as error:
        raise _refused(repo, error) from error


def _refused(repo: str, error: Exception) -> UserError:
    reason = first_line(error)
    return UserError(
        f"{repo} on the hub cannot be written to ({reason}): log in with `hf auth login`, or check the id."
    )
