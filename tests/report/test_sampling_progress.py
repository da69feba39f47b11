"""What sampling says of itself."""

import io

from rich.console import Console

from open_r1.report.sampling_progress import SamplingProgress


def test_time_left_is_told_once_enough_samples_have_finished():
    with SamplingProgress("task", total=2100, done=100, right=10, console=Console(quiet=True)) as progress:
        progress.add_graded(63, right=3)
        progress.add_finished(63)
        assert "left" not in progress.news()
        progress.add_graded(1, right=0)
        progress.add_finished(1)
        assert "left" in progress.news()


def test_a_task_with_brackets_in_its_name_is_shown_as_it_is():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with SamplingProgress("sums[/v2]", total=2, done=0, right=0, console=console):
        pass
    assert "sums[/v2]" in console.file.getvalue()


def test_a_short_task_tells_it_at_its_first_sample_and_nothing_at_its_end():
    with SamplingProgress("task", total=2, done=0, right=0, console=Console(quiet=True)) as progress:
        progress.add_graded(1, right=1)
        progress.add_finished(1)
        assert progress.news().startswith("100.0% right") and "left" in progress.news()
        progress.add_graded(1, right=0)
        progress.add_finished(1)
        assert progress.news() == "50.0% right"
