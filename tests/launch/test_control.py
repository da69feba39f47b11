"""What the nodes of a launch tell each other, with two nodes in one process."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from open_r1.errors import UserError
from open_r1.launch.control import EXCHANGE_SECONDS, Control
from open_r1.processes.child import Failure


def meet(plans=("a plan", "a plan"), silence=60.0):
    """The results of two nodes that meet: a `Control`, or what was raised."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with ThreadPoolExecutor() as pool:
        nodes = [pool.submit(Control, 2, rank, "127.0.0.1", port, plans[rank], 30.0, silence) for rank in (0, 1)]
    return [node.exception() or node.result() for node in nodes]


def close(*nodes):
    with ThreadPoolExecutor() as pool:
        list(pool.map(Control.close, nodes))


def test_values_and_marks_of_one_node_are_known_to_the_other():
    first, second = meet()
    assert first.missing("serving", range(2)) == [0, 1]
    second.publish("serving")
    second.publish("address", "10.0.0.2")
    assert first.value("address", 1) == "10.0.0.2"
    assert first.missing("serving", range(2)) == [0]
    assert second.missing("serving", range(1, 2)) == []
    assert first.failure() is second.failure() is None
    close(first, second)


def test_the_failure_that_was_published_first_is_that_of_all_nodes():
    first, second = meet()
    failure = Failure("training", "node 1", 5, "ended with exit code 5", ("CUDA out of memory",), printed=True)
    assert second.fail(failure) == failure
    assert first.fail(Failure("training", "node 0", 1, "ended with exit code 1")) == failure
    for _ in range(10):  # it stays so
        assert first.failure() == second.failure() == failure
        time.sleep(EXCHANGE_SECONDS / 2)
    close(first, second)


def test_a_node_that_has_left_is_not_silent():
    first, second = meet(silence=0.6)
    second.close()
    time.sleep(1.5)
    assert first.failure() is None
    close(first)


def test_a_value_that_is_never_published_is_named():
    first, second = meet(silence=0.5)
    with pytest.raises(UserError, match=r"node 1 \(.*\) did not publish its address"):
        first.value("address", 1)
    close(first, second)


def test_nodes_with_different_plans_do_not_start():
    errors = meet(plans=("one recipe", "another"))
    assert all(isinstance(error, UserError) for error in errors)
    assert any("another command or another version" in str(error) for error in errors)


def test_a_single_node_is_alone():
    alone = Control()
    assert alone.missing("finished", range(1)) == [0]
    alone.publish("finished")
    assert alone.missing("finished", range(1)) == []
    failure = Failure("generator", "this node", 9, "ended with exit code 9")
    assert alone.fail(failure) == alone.failure() == failure
    alone.close()
