"""The command line of a vLLM server, and what is said when it ends before it answers."""

import itertools
import sys

import psutil
import pytest

from open_r1.engine.vllm.process import (
    GRAPH_SIZES,
    ServerOptions,
    graph_sizes,
    server_environment,
    server_words,
    start_servers,
    vllm_server,
    wait_until_up,
)
from open_r1.errors import UserError


def test_the_command_line_has_what_weights_and_logprobs_need():
    options = ServerOptions(model="m", port=8123, max_model_len=512, dtype="bfloat16")
    words = server_words(options, on_gpu=True, extra=["--x"])
    pairs = list(itertools.pairwise(words))
    for pair in (
        ("--worker-extension-cls", "open_r1.engine.vllm.weights.WeightReceiver"),
        ("--logprobs-mode", "processed_logprobs"),
        ("--middleware", "open_r1.engine.vllm.tokens.TokensRoute"),
        ("--scheduler-cls", "open_r1.engine.vllm.scheduler.scheduler"),
        ("--host", "127.0.0.1"),
        ("--port", "8123"),
        ("--max-model-len", "512"),
    ):
        assert pair in pairs
    assert words[-1] == "--x" and "--compilation-config" in words
    on_cpu = server_words(ServerOptions(model="m", max_model_len=8000), on_gpu=False)
    assert "--compilation-config" not in on_cpu
    assert on_cpu[on_cpu.index("--no-enable-chunked-prefill") :][1:3] == ["--max-num-batched-tokens", "8000"]


def test_its_environment_has_dev_mode_and_its_gpus():
    environment = server_environment(["3", "4"])
    assert (environment["VLLM_SERVER_DEV_MODE"], environment["CUDA_VISIBLE_DEVICES"]) == ("1", "3,4")
    assert "CUDA_VISIBLE_DEVICES" not in server_environment()


def test_a_server_that_ends_before_it_answers_shows_the_end_of_its_log(monkeypatch, tmp_path):
    code = "import sys; print('model not found'); sys.exit(3)"
    monkeypatch.setattr("open_r1.engine.vllm.process.server_words", lambda *_: [sys.executable, "-c", code])
    server = vllm_server(ServerOptions(model="m", port=9), [], tmp_path / "log" / "server.log")
    with pytest.raises(UserError, match=r"ended with exit code 3\.\n.*server\.log:\n +model not found"):
        start_servers([server], 30.0, print)


def test_the_first_error_in_its_log_is_the_reason(monkeypatch, tmp_path):
    lines = [
        "WARNING [a.py:1] This can cause errors like `OSError: Too many open files`.",
        "(Worker pid=1) ERROR [executor.py:9]     raise ValueError(",
        "(Worker pid=1) ERROR [executor.py:9] ValueError: Available memory is less than requested.",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    code = f"import sys; print({chr(10).join(lines)!r}); sys.exit(1)"
    monkeypatch.setattr("open_r1.engine.vllm.process.server_words", lambda *_: [sys.executable, "-c", code])
    server = vllm_server(ServerOptions(model="m", port=9), [], tmp_path / "server.log")
    reason = r"ended with exit code 1: ValueError: Available memory is less than requested\.\nThe end of its log"
    with pytest.raises(UserError, match=reason):
        start_servers([server], 30.0, print)


def test_a_server_that_never_answers_is_ended(monkeypatch, tmp_path):
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr("open_r1.engine.vllm.process.server_words", lambda *_: words)
    server = vllm_server(ServerOptions(model="m", port=9), [], tmp_path / "server.log").start()
    with pytest.raises(UserError, match=r"did not answer at http.* within 0\.3 s") as late:
        list(wait_until_up([server], 0.3, print))
    assert late.value.server is server and server.poll() is None
    server.stop()
    with pytest.raises(UserError, match="did not answer"):
        start_servers([vllm_server(ServerOptions(model="m", port=9), [], tmp_path / "second.log")], 0.3, print)
    assert not [p for p in psutil.Process().children() if "open_r1.processes.guard" in " ".join(p.cmdline())]


def test_every_full_batch_has_a_cuda_graph():
    assert graph_sizes(4) == [1, 2, 4, 8]
    assert graph_sizes(341)[-2:] == [256, 341]
    assert graph_sizes(1024) == graph_sizes(4096) == list(GRAPH_SIZES)
