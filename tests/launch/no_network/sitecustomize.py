"""On PYTHONPATH: every attempt to leave this machine is written to the file $ATTEMPTS, and refused."""

import os
import socket
import traceback
from pathlib import Path

LOCAL = ("127.", "::1", "localhost", "0.0.0.0")
_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _refuse(target):
    with Path(os.environ["ATTEMPTS"]).open("a") as file:
        file.write(f"{target}\n{''.join(traceback.format_stack()[:-2])}\n")
    raise OSError(f"no network in this test: {target}")


def _is_local(host):
    name = str(host or "localhost")
    return name.startswith(LOCAL) or name.endswith(".localhost") or name == socket.gethostname()


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
        _refuse(address)
    return _connect(self, address)


def connect_ex(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
        _refuse(address)
    return _connect_ex(self, address)


def getaddrinfo(host, *rest, **more):
    if not _is_local(host.decode() if isinstance(host, bytes) else host):
        _refuse(host)
    return _getaddrinfo(host, *rest, **more)


socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo
