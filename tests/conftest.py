"""What all tests share."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the models are too small for more threads


def pytest_collection_finish() -> None:
    """Every run of the trainer collects garbage: not among what was imported, which takes a quarter of a second."""
    gc.collect()
    gc.freeze()
