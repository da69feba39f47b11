"""Private names of datasets."""

from datasets import Dataset


def rows_fingerprint(dataset: Dataset) -> str:
    """A fingerprint that is equal for equal rows, in every process and run.

    `_fingerprint`: the key of the caches of `datasets`. The public way would be to hash all rows.
    """
    return dataset._fingerprint
