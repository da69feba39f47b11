"""What the tests of launching share."""

import psutil
import pytest


@pytest.fixture(autouse=True)
def no_run_outlives_its_test():
    """A test that fails in the middle would leave its run, which takes ports and cores from the tests after it."""
    yield
    for process in psutil.Process().children():
        if "open_r1.cli" in process.cmdline():
            for one in [*process.children(recursive=True), process]:
                one.kill()
            process.wait()
