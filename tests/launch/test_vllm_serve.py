"""`open-r1 vllm-serve` becomes vLLM's server, with the options that a run needs."""

import os

from open_r1.launch import vllm_serve


def test_options_are_passed_on_and_dev_mode_is_set(monkeypatch):
    started = {}
    monkeypatch.setattr("open_r1.engine.vllm.installed.version_of_vllm", lambda: "0.31.0")
    monkeypatch.setattr(os, "execve", lambda path, words, env: started.update(words=words, env=env))
    monkeypatch.setenv("RANK", "0")
    vllm_serve.main(
        ["--model", "m", "--tensor_parallel_size", "2", "--port", "8100", "--dtype", "float32", "--swap-space", "0"]
    )
    words, environment = started["words"], started["env"]
    assert "m" in words and words[-2:] == ["--swap-space", "0"]
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert environment["VLLM_SERVER_DEV_MODE"] == "1" and "RANK" not in environment
