"""Addresses at which other hosts reach this machine, and free ports on it."""

import socket

from open_r1.errors import UserError


def address_towards(host: str) -> str:
    """This machine's address on the interface through which it reaches `host` (loopback for itself), in IPv4 if `host`
    has such an address."""
    found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    family, _, _, _, target = min(found, key=lambda info: info[0] != socket.AF_INET)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting UDP sends nothing
        probe.connect(target)
        return probe.getsockname()[0]


def listen(address: str, port: int) -> socket.socket:
    """A socket that listens on the interface with `address` only, on `port` or, if that is in use, on any free port."""
    family = socket.getaddrinfo(address, None)[0][0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError:
        listener.bind((address, 0))
    listener.listen(512)
    return listener


def free_port(first: int, count: int = 1) -> int:
    """The first port from `first` on that begins a run of `count` free ports. Raises `UserError` if there is none."""
    for port in range(first, first + 1000):
        if all(port_is_free(port + i) for i in range(count)):
            return port
    raise UserError(f"no {count} free ports between {first} and {first + 1000} on this machine.")


def any_free_port() -> int:
    """A free port on loopback, chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def port_is_free(port: int, host: str = "") -> bool:
    """Whether a server could listen on `port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True
