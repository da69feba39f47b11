"""What the tests of launching share."""

from contextlib import suppress

import psutil
import pytest


@pytest.fixture(autouse=True)
def no_run_outlives_its_test():
    """A test that fails in the middle would leave its run, which takes ports and cores from the tests after it."""
    yield
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if "open_r1.cli" in process.cmdline():
                for one in [*process.children(recursive=True), process]:
                    one.kill()
