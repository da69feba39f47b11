"""Where other hosts reach this machine."""

import socket

import pytest

from open_r1.engine.vllm.addresses import address_towards, listen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_towards_itself_it_is_loopback(host):
    assert address_towards(host) == "127.0.0.1"


def test_an_address_of_ipv4_is_taken_where_there_is_one(monkeypatch):
    six = (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", 9, 0, 0))
    four = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 9))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [six, four])
    assert address_towards("both") == "127.0.0.1"


def test_a_port_that_is_taken_is_replaced():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:
            assert second.getsockname()[1] not in (0, port)
