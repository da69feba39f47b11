import http.server
import json
import re
import shutil
import threading
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from runs import make_folder
from toys import make_tokenizer

from open_r1 import cli
from open_r1.launch.doctor import gpus, hub, machine
from open_r1.launch.doctor.finding import Finding, can_start
from open_r1.launch.doctor.gpus import check_gpus, describe_links, newer_major
from open_r1.launch.doctor.machine import check_machine, disk, shared_memory
from open_r1.launch.doctor.recipe import check_recipe

TOPOLOGY = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\x1b[0m
GPU0\t X \tNV18\tSYS\tPIX\t0-47
GPU1\tNV18\t X \tNV18\tNODE\t0-47
GPU2\tSYS\tNV18\t X \tSYS\t48-95
NIC0\tPIX\tNODE\tSYS\t X
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("doctor"))


@pytest.fixture
def recipe(toys, tmp_path):
    def write(task, **options):
        data = {"sft": "traces.jsonl", "grpo": "problems.jsonl"}[task]
        settings = {
            "model_name_or_path": str(toys / "model"),
            "dataset_name": str(toys / data),
            "output_dir": str(tmp_path / "out"),
            "report_to": "none",
        }
        if task == "grpo":
            settings |= {"dataset_prompt_column": "problem", "max_completion_length": 16, "reward_funcs": ["accuracy"]}
        path = tmp_path / task / "config_toy.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(settings | options))
        return str(path)

    return write


def by_area(findings) -> dict[str, Finding]:
    return {finding.area: finding for finding in findings}


def test_this_machine_can_start_a_run_without_gpu_network_or_login(monkeypatch, tmp_path):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "get_token", lambda: None)
    findings = [*check_machine({"runs": tmp_path}), *check_gpus(), *hub.check_hub()]
    found = by_area(findings)
    assert {"python", "torch", "gpus", "attention", "vllm", "nccl", "git-lfs", "slurm", "shared memory"} <= set(found)
    assert found["hub"].state == "note"
    assert "HF_ENDPOINT" in found["hub"].remedy
    assert found["login"].state == "ok"
    assert can_start(findings)
    assert all(finding.remedy for finding in findings if finding.state != "ok")


@pytest.mark.parametrize(("more", "needs"), [({}, True), ({"vllm_server_base_url": "http://node7:8000"}, False)])
def test_a_server_that_is_somewhere_else_needs_no_vllm_here(recipe, monkeypatch, more, needs):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = recipe("grpo", use_vllm=True, vllm_mode="server", num_generations=2, **more)
    said = [finding.text for finding in check_recipe(path, [])]
    assert ("vllm_mode: server needs vllm" in said) == needs


@pytest.mark.parametrize(
    ("options", "needs"),
    [({"use_vllm": True}, False), ({}, False), ({"engine": "vllm"}, True), ({"engine": "native"}, False)],
)
def test_on_the_training_gpus_only_engine_vllm_needs_vllm(recipe, monkeypatch, options, needs):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = [finding.text for finding in check_recipe(recipe("grpo", num_generations=2, **options), [])]
    assert ("engine: vllm needs vllm" in said) == needs


def test_busy_gpus_are_those_that_are_visible_and_unknown_memory_is_not_busy(monkeypatch):
    """As nvidia-smi lists all GPUs, torch those in CUDA_VISIBLE_DEVICES."""
    table = "0, GPU-a, 70000\n1, GPU-b, 10\n2, GPU-c, 60000\n3, GPU-d, [N/A]\n"
    monkeypatch.setattr(gpus, "_nvidia_smi", lambda *words: table if "--query" in words[0] else "")
    memory = SimpleNamespace(name="H200", total_memory=80_000 * 2**20)
    cuda = {"is_available": lambda: True, "device_count": lambda: 3, "get_device_properties": lambda i: memory}
    monkeypatch.setattr(gpus, "visible_devices", lambda: ["1", "GPU-c", "3"])
    found = list(gpus._gpus(SimpleNamespace(cuda=SimpleNamespace(**cuda))))
    assert [f.text for f in found if f.state == "note"] == ["GPU GPU-c is in use by other programs"]


def test_a_slurm_without_a_controller_is_a_note(monkeypatch, tmp_path):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho slurm 24\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    finding = machine._slurm()
    assert finding.state == "note" and "slurm 24, but no controller answers" in finding.text


def test_links_between_gpus_are_summed_up():
    assert describe_links(TOPOLOGY) == "NV18 (2 pairs), SYS (1 pair)"
    assert describe_links("") == "not known"


@pytest.mark.parametrize(
    ("built", "driver", "older"), [("13.0", "12.8", True), ("12.8", "12.2", False), ("12.6", "13.0", False)]
)
def test_a_driver_is_too_old_by_major_version(built, driver, older):
    assert newer_major(built, driver) is older


def test_little_room_is_said(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 0, 2**26))
    assert disk("runs", tmp_path / "not" / "there").state == "note"
    (finding,) = shared_memory(tmp_path)
    assert "--shm-size" in finding.remedy
    assert list(shared_memory(tmp_path / "none")) == []


def test_a_folder_that_cannot_be_written_to_is_a_problem():
    assert disk("runs", Path("/proc/runs")).state == "problem"


def test_a_mirror_is_named_and_offline_mode_asks_nobody(monkeypatch):
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "only the cache" in by_area(hub.check_hub())["hub"].text
    assert asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    found = by_area(hub.check_hub())["hub"]
    server.shutdown()
    assert (found.state, len(asked)) == ("ok", 1)
    assert "HF_ENDPOINT" in found.text


def test_a_recipe_in_order(recipe):
    found = by_area(check_recipe(recipe("grpo"), []))
    assert {finding.state for finding in found.values()} == {"ok"}
    assert {"recipe", "model", "tokenizer", "chat template", "data", "examples", "rewards", "golds", "layout"} <= set(
        found
    )
    assert "pad token" in found["tokenizer"].text
    assert "24 rows" in found["data"].text
    found = by_area(check_recipe(recipe("sft"), []))
    assert {finding.state for finding in found.values()} == {"ok"}
    assert "documents" in found["examples"].text


@pytest.mark.parametrize(
    ("options", "area", "text"),
    [
        ({"model_name_or_path": "/not/there"}, "model", "/not/there"),
        ({"dataset_name": "/not/there.jsonl"}, "data", "/not/there.jsonl"),
        ({"dataset_prompt_column": "question"}, "examples", "question"),
        ({"chat_template": "{{ no_such_function() }}"}, "tokenizer", "chat_template"),
        ({"reward_funcs": ["acuracy"]}, "rewards", "acuracy"),
        ({"num_generations": 7}, "layout", "does not divide"),
        ({"learning_rat": 1}, "recipe", "learning_rate"),
        ({"use_peft": True, "report_to": "no_such_tracker"}, "recipe", "no_such_tracker"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_found_and_the_rest_is_still_looked_at(options, area, text, recipe):
    findings = check_recipe(recipe("grpo", **options), [])
    problems = [finding for finding in findings if finding.state == "problem"]
    assert any(finding.area == area and text in finding.text for finding in problems), problems
    if area in ("data", "rewards"):
        assert by_area(findings)["model"].state == "ok"


def test_the_first_rows_are_shown_with_the_learned_part_marked(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = [{"role": "user", "content": "[bold]1 + 1[/bold]?"}, {"role": "assistant", "content": "It is 2."}]
    path = tmp_path / "chats.jsonl"
    path.write_text(f"{json.dumps({'messages': said})}\n" * 3)
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--config", recipe("sft", dataset_name=str(path), assistant_only_loss=True)])
    page = " ".join(capsys.readouterr().out.split())
    row = "<|im_start|>user [bold]1 + 1[/bold]?<|im_end|> <|im_start|>assistant ⟦It is 2.<|im_end|> ⟧"
    assert page.count(row) == len(re.findall(r"\d+ tokens learned, \d+ not <", page)) == 2
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--config", recipe("grpo")])
    page = " ".join(capsys.readouterr().out.split())
    assert len(re.findall(r"\d+ tokens <\|im_start\|>user ", page)) == 2


def test_an_end_token_that_opens_turns_is_noted(recipe, tmp_path):
    make_tokenizer(tmp_path / "odd", eos="<|im_start|>")
    findings = check_recipe(recipe("sft", model_name_or_path=str(tmp_path / "odd")), [])
    assert any("opens turns" in finding.text for finding in findings)


def test_the_command_prints_a_page_or_json_and_its_status_says_whether_to_start(recipe, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--config", recipe("grpo"), "--json"])
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["can_start"] is True
    assert {"area", "state", "text", "remedy"} == set(told["findings"][0])
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--config", recipe("grpo"), "--reward_funcs", "acuracy"])
    assert end.value.code == 1
    page = capsys.readouterr().out
    assert "acuracy" in page
    assert "1 problem to fix before a run can start here." in page
