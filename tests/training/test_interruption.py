"""A run that is told to stop saves a checkpoint behind its step, says so by its exit status, and continues exactly."""

import os
import signal
import time

import odd_rewards
import pytest
from runs import arguments, assert_same_weights, launch, make_folder, metrics, weights

from open_r1 import grpo
from open_r1.errors import Interrupted, UserError
from open_r1.report.recorder import read_rollouts
from open_r1.rewards.pool import Pool
from open_r1.training.interruption import STOP_SIGNALS, StopSignals


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"))


def options(**more):
    return {"max_steps": 6, "save_steps": 50, "reward_funcs": "odd_rewards:stopped_at_step_3", **more}


def run(folder, out, **more):
    odd_rewards.CALLS.clear()  # several runs in a test
    grpo.main(arguments(folder, "grpo", out, **options(**more)))


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT"])
def test_a_signal_stops_the_run_behind_its_step_and_the_same_command_continues_exactly(
    folder, tmp_path, name, monkeypatch, capfd
):
    run(folder, tmp_path / "whole", save_only_model="true")
    monkeypatch.setenv("STOP", name)
    with pytest.raises(Interrupted, match=f"Stopped after step 3, .* in {tmp_path}/stopped/checkpoint-3"):
        run(folder, tmp_path / "stopped", save_only_model="true")
    assert f"{name}: the run finishes its step" in capfd.readouterr().err
    assert [line["step"] for line in metrics(tmp_path / "stopped")] == [1, 2, 3]
    assert (tmp_path / "stopped/checkpoint-3/optimizer.pt").exists()
    assert not (tmp_path / "stopped/model.safetensors").exists()
    monkeypatch.delenv("STOP")
    run(folder, tmp_path / "stopped", save_only_model="true")
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")
    assert read_rollouts(tmp_path / "stopped/run").equals(read_rollouts(tmp_path / "whole/run"))


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_ctrl_c_after_another_signal_ends_the_run_at_once_and_names_the_checkpoint(
    folder, tmp_path, first, monkeypatch
):
    monkeypatch.setenv("STOP", f"{first} SIGINT")
    with pytest.raises(KeyboardInterrupt, match=f"same command continues from {tmp_path}/out/checkpoint-2"):
        run(folder, tmp_path / "out", save_steps=2)
    assert [line["step"] for line in metrics(tmp_path / "out")] == [1, 2]
    assert not (tmp_path / "out/checkpoint-3").exists()
    monkeypatch.delenv("STOP")
    run(folder, tmp_path / "out", save_steps=2)
    assert [line["step"] for line in metrics(tmp_path / "out")] == [1, 2, 3, 4, 5, 6]


def test_all_ranks_stop_behind_the_same_step_when_one_gets_the_signal(folder, tmp_path):
    argv = arguments(folder, "grpo", tmp_path / "out", **options(per_device_train_batch_size=4))
    done = launch("grpo", argv, processes=2, check=False, env={"STOP": "SIGUSR1"}, torchrun=True)
    assert done.stderr.count("Stopped after step 3") == 2
    assert done.stderr.count("exitcode  : 75") == 2
    assert (tmp_path / "out/checkpoint-3/open_r1-rank1.pt").exists()
    launch("grpo", argv, processes=2)
    assert [line["step"] for line in metrics(tmp_path / "out")] == [1, 2, 3, 4, 5, 6]


def test_a_signal_in_the_last_step_lets_the_run_finish(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("STOP", "SIGTERM")
    run(folder, tmp_path / "out", max_steps=3)
    assert weights(tmp_path / "out")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_forked_helper_dies_of_sigterm_and_not_of_sigusr1():
    signals = StopSignals()
    signals.listen()
    try:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received is signal.SIGUSR1
    finally:
        signals.restore()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_graders_outlive_the_signals_of_their_parent():
    pool = Pool(size=1)
    request = {"answer": "1/2", "gold": "0.5"}
    before = pool.submit(request).result()
    (worker,) = pool._workers
    for number in (signal.SIGUSR1, signal.SIGTERM):
        worker.process.send_signal(number)
    assert pool.submit(request).result() == before
    assert {worker} == pool._workers
    pool.close()


def test_a_run_that_fails_leaves_signals_as_they_were(folder, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError, match="broken"):
        run(folder, tmp_path / "out", reward_funcs="odd_rewards:broken")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_background_job_of_a_shell_goes_on_ignoring_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals = StopSignals()
    signals.listen()
    os.kill(os.getpid(), signal.SIGINT)
    signals.restore()
    assert signals.received is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, before)
