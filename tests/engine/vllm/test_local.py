"""Servers that a command starts for itself. (Real ones: tests/evaluation/test_vllm_evaluation.py.)"""

import sys
import time

import pytest
from fake_vllm import FakeVLLM

from open_r1.engine.vllm.local import LocalServers
from open_r1.engine.vllm.process import ServerOptions, start_servers, vllm_server
from open_r1.errors import UserError


class Broken:
    """An engine whose server does not answer a request."""

    def stream(self, requests):
        raise UserError("the connection broke")
        yield

    def close(self):
        pass


@pytest.mark.parametrize("alive", [False, True])
def test_a_server_that_ends_soon_after_its_connections_broke_is_the_reason(monkeypatch, tmp_path, alive):
    stand_in = FakeVLLM()
    code = f"import time; time.sleep({60 if alive else 2}); raise SystemExit(7)"
    monkeypatch.setattr("open_r1.engine.vllm.process.server_words", lambda *_: [sys.executable, "-c", code])
    options = ServerOptions(model="m", port=stand_in.port)
    servers = LocalServers(options, [()], None)
    servers.processes = start_servers([vllm_server(options, [], tmp_path / "log")], 30.0, print)
    servers._engine = Broken()
    if not alive:
        stand_in.die()
    with pytest.raises(UserError, match="the connection broke" if alive else "ended with exit code 7"):
        list(servers.stream([]))
    servers.close()
    if alive:
        stand_in.die()


def test_a_server_that_hangs_is_the_reason_with_the_end_of_its_log(monkeypatch, tmp_path):
    stand_in = FakeVLLM()
    code = "import time; print('last words', flush=True); time.sleep(60)"
    monkeypatch.setattr("open_r1.engine.vllm.process.server_words", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setattr("open_r1.engine.vllm.local.END_SECONDS", 0.2)
    options = ServerOptions(model="m", port=stand_in.port)
    servers = LocalServers(options, [()], None)
    servers.processes = start_servers([vllm_server(options, [], tmp_path / "log")], 30.0, print)
    servers._engine = Broken()
    monkeypatch.setattr("open_r1.engine.vllm.local.is_up", lambda url: False)
    while "last words" not in (tmp_path / "log").read_text():
        time.sleep(0.05)
    with pytest.raises(UserError, match=r"127.0.0.1:\d+ hangs.\n.*\n  last words"):
        list(servers.stream([]))
    servers.close()
    stand_in.die()
