"""Uploads datasets to the hub."""

from pathlib import Path

from open_r1.hub import create_repo, refused

NOT_PUSHED = ["run/journal.jsonl", "run/.lock", "**/.lock", "*.tmp", "**/*.tmp"]


def create_dataset_repo(repo: str, private: bool) -> None:
    """Creates `repo` if necessary, and checks that it is writable. Raises `UserError`."""
    create_repo(repo, repo_type="dataset", private=private)


def push_dataset(folder: Path, repo: str) -> str:
    """Uploads a dataset folder (shards, card, settings). Returns its address. Raises `UserError`."""
    from huggingface_hub import upload_folder
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return str(upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder, ignore_patterns=NOT_PUSHED))
    except (HfHubHTTPError, OSError) as error:
        raise refused(repo, error) from error
