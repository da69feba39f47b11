import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from toys import make_model, make_tokenizer

from open_r1.configs import GRPOConfig, ModelConfig
from open_r1.engine.vllm.process import is_up
from open_r1.errors import UserError
from open_r1.run.generators import server_urls, spare_gpus

SERVER = Path(__file__).parents[1] / "launch" / "fake_server.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leftover") / "model"
    make_model(make_tokenizer(folder))
    return ModelConfig(model_name_or_path=str(folder))


@pytest.fixture
def config(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]

    def make(**options):
        options = {"vllm_server_port": port, "vllm_server_timeout": 20.0, **options}
        return GRPOConfig(output_dir=str(tmp_path), use_vllm=True, vllm_mode="server", report_to="none", **options)

    return make


def template(*options) -> str:
    return " ".join([sys.executable, str(SERVER), "{port}", *options])


def test_generators_get_the_gpus_that_no_process_trains_on():
    assert spare_gpus(list("01234567"), 7) == ("7",)
    assert spare_gpus(["GPU-a", "GPU-b", "GPU-c"], 1) == ("GPU-b", "GPU-c")
    assert spare_gpus([], 2) == ()
    with pytest.raises(UserError, match=r"all 8 GPUs train.*--num_processes=7"):
        spare_gpus(list("01234567"), 8)


def test_a_server_that_is_named_is_not_started(config, model):
    assert server_urls(config(vllm_server_base_url="http://a:1,http://b:1"), model) == "http://a:1,http://b:1"
    assert server_urls(config(vllm_server_host="node7", vllm_server_port=8000), model) == "http://node7:8000"


@pytest.mark.parametrize("end", ["returns", "raises", "is killed"])
def test_a_generator_is_started_and_ends_with_training(end, config, model, tmp_path):
    """Also one that answers already is used, and outlives the second run."""
    args = config()
    url = f"http://127.0.0.1:{args.vllm_server_port}"
    pid = os.fork()
    if pid == 0:
        try:
            assert server_urls(args, model, template("late=0.3")) == url
            assert server_urls(args, model, "no such command") == url
            (tmp_path / "up").touch()
            time.sleep(60 if end == "is killed" else 0)
            if end == "raises":
                raise RuntimeError
        finally:
            _exit_as_an_interpreter()
    wait_until(lambda: (tmp_path / "up").exists())
    if end == "is killed":
        assert is_up(url)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_until(lambda: not is_up(url))


def _exit_as_an_interpreter():
    import atexit

    atexit._run_exitfuncs()
    os._exit(0)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "command", "text"),
    [
        ({"vllm_server_timeout": 0.5}, template("late=60"), r"did not answer at .* within 0\.5 s"),
        ({}, template("dies=0.1", "late=5"), r"ended with exit code 9[\s\S]*out of memory"),
    ],
)
def test_a_generator_that_does_not_come_up_is_one_sentence(options, command, text, config, model, tmp_path):
    with pytest.raises(UserError, match=text):
        server_urls(config(**options), model, command)


def test_a_port_that_somebody_else_has_is_said(config, model):
    args = config()
    with (
        socket.create_server(("", args.vllm_server_port)),
        pytest.raises(UserError, match=f"port {args.vllm_server_port}"),
    ):
        server_urls(args, model, template())
