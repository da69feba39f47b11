"""GRPO with vLLM servers: stand-ins by default, and (make test-vllm) a real one."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from fake_vllm import FakeVLLM
from patience import PATIENCE
from runs import arguments, launch, make_folder, metrics
from toys import make_model
from transformers import AutoConfig, AutoModelForCausalLM

from open_r1 import grpo
from open_r1.engine.vllm.addresses import free_port
from open_r1.engine.vllm.process import ServerOptions, start_servers, vllm_server
from open_r1.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def options(url, **more):
    served = {"use_vllm": "true", "vllm_mode": "server", "vllm_server_base_url": url, "vllm_group_port": 0}
    return {**served, "vllm_server_timeout": 1, "max_steps": 3, "reward_funcs": "odd_rewards:vowels", **more}


def fake(folder, **more):
    config = AutoConfig.from_pretrained(folder / "model")
    shape = [config.hidden_size, config.num_hidden_layers, config.vocab_size]
    return FakeVLLM(shape=shape, max_model_len=4096, **more)


@pytest.mark.parametrize("staleness", [0, 1])
def test_every_round_is_written_with_the_weights_that_it_should_have(folder, tmp_path, staleness):
    server = fake(folder)
    grpo.main(arguments(folder, "grpo", tmp_path / "out", **options(server.url, max_staleness=staleness)))
    server.die()
    lines = [line for line in metrics(tmp_path / "out") if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert server.receiver.weights_version == 2 - staleness
    assert [line.get("sampling/staleness", 0) for line in lines] == [0, staleness, staleness]


@pytest.mark.parametrize("reported", [False, True])
def test_the_share_of_tokens_with_other_experts_is_logged_if_the_server_reports_them(tmp_path, reported):
    """The stand-in's are nobody's."""
    folder = make_folder(tmp_path)
    config = AutoConfig.for_model(
        "qwen3_moe",
        **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8},
        **{"num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        vocab_size=AutoConfig.from_pretrained(folder / "model").vocab_size,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    server = fake(folder, experts=reported)
    grpo.main(arguments(folder, "grpo", tmp_path / "out", **options(server.url, max_steps=1, beta=0.1)))
    server.die()
    (line,) = [line for line in metrics(tmp_path / "out") if "loss" in line]
    assert ("router/other_experts" in line) == reported and line.get("router/other_experts", 1.0) == 1.0


def test_a_server_that_dies_ends_the_run_which_continues_with_another(folder, tmp_path):
    server = fake(folder, slow=0.05)
    argv = arguments(folder, "grpo", tmp_path / "out", **options(server.url, max_steps=12, save_steps=1))

    def die_later():
        while server.receiver.weights_version < 2:
            time.sleep(0.01)
        server.die()

    threading.Thread(target=die_later, daemon=True).start()
    with pytest.raises(UserError, match=r"Restart .*, then run the same command"):
        grpo.main(argv)
    again = fake(folder, port=server.port)
    grpo.main(argv)
    again.die()
    assert [line["step"] for line in metrics(tmp_path / "out") if "loss" in line] == list(range(1, 13))
    assert len(again.bodies) < 2 * 12


@pytest.mark.slow
def test_two_processes_share_the_servers_and_one_sends_the_weights(folder, tmp_path):
    first, second = fake(folder), fake(folder)
    url = f"{first.url},{second.url}"
    argv = arguments(folder, "grpo", tmp_path / "out", **options(url, per_device_train_batch_size=4, max_staleness=1))
    launch("grpo", argv, processes=2)
    for server in (first, second):
        server.die()
        assert server.receiver.weights_version == 1 and server.bodies
    assert len({body["sampling"]["seed"] for server in (first, second) for body in server.bodies}) == 2 * 3
    assert [line["step"] for line in metrics(tmp_path / "out") if "loss" in line] == [1, 2, 3]


def real(folder, port, log):
    command = vllm_server(
        ServerOptions(
            model=str(folder / "model"),
            port=port,
            dtype="float32",
            max_model_len=128,
            max_num_seqs=16,
            gpu_memory_utilization=0.2,
            enforce_eager=True,
        ),
        [],
        log,
    )
    return start_servers([command], PATIENCE, print)[0]


@pytest.mark.vllm
def test_a_real_server_writes_and_follows_and_can_be_killed(tmp_path):
    """Staleness 0 and 1 on one server; then it is killed in the middle of a run, which continues with a new one."""
    folder = make_folder(tmp_path)
    make_model(folder / "model", hidden_size=128)
    port = free_port(8300)
    server = real(folder, port, tmp_path / "server.log")
    try:
        for staleness in (0, 1):
            out = tmp_path / f"out-{staleness}"
            launch("grpo", arguments(folder, "grpo", out, **options(server.url, max_staleness=staleness)))
            lines = [line for line in metrics(out) if "loss" in line]
            assert [line["step"] for line in lines] == [1, 2, 3]
            difference = [line["sampling/logprob_difference"] for line in lines]
            assert difference[0] < 1e-3 and (staleness or max(difference) < 1e-3)
        argv = arguments(folder, "grpo", tmp_path / "out", **options(server.url, max_steps=40, save_steps=1))
        script = Path(grpo.__file__)
        paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        run = subprocess.Popen(
            [sys.executable, str(script), *argv],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        while not (tmp_path / "out/checkpoint-2").exists():
            assert run.poll() is None
            time.sleep(0.1)
        for process in psutil.Process(server.process.pid).children():
            process.kill()
        _, said = run.communicate(timeout=PATIENCE)
        assert run.returncode == 2 and "it continues from the last checkpoint" in said
        assert "Traceback" not in said
        server = real(folder, port, tmp_path / "server.log")
        launch("grpo", argv)
        assert [line["step"] for line in metrics(tmp_path / "out") if "loss" in line] == list(range(1, 41))
    finally:
        server.stop()
