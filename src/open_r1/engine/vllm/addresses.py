"""Addresses at which other hosts reach this machine."""

import socket


def address_towards(host: str) -> str:
    """This machine's address on the interface through which it reaches `host`: loopback for itself, and of IPv4 where
    `host` has an address of it."""
    found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    family, _, _, _, target = min(found, key=lambda info: info[0] != socket.AF_INET)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting UDP sends nothing
        probe.connect(target)
        return probe.getsockname()[0]


def listen(address: str, port: int) -> socket.socket:
    """A listener on that interface only; on a port of the system's choice where `port` is taken."""
    family = socket.getaddrinfo(address, None)[0][0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError:
        listener.bind((address, 0))
    listener.listen(512)
    return listener
