"""The progress bars of other libraries."""


def hide_library_bars() -> None:
    """Hides the bars that datasets and transformers draw while they load, which would break ours."""
    import datasets
    from transformers.utils import logging

    datasets.disable_progress_bars()
    logging.disable_progress_bar()
