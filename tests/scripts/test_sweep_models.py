"""Every architecture of transformers trains exactly or is refused, and the table in the docs says which."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import sweep_models  # noqa: E402


@pytest.mark.parametrize(
    "kind", ["qwen3_5", "qwen3_5_moe_text", "falcon_h1", "granitemoehybrid", "jamba", "nemotron_h"]
)
def test_mixers_train_exactly_and_engines_decode_with_them(kind):
    assert sweep_models.try_kind(kind).verdict == "trains"


def test_a_wrong_logprob_is_found(monkeypatch):
    monkeypatch.setattr(sweep_models, "can_share_prompts", lambda model: True)
    assert sweep_models.try_kind("qwen3_5_text").verdict == "wrong"


STAND_IN = """
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def kernel(*args, **kwargs):
        raise RuntimeError("0 active drivers")

    return kernel
"""


@pytest.mark.slow
def test_installed_kernels_change_no_model(tmp_path):
    """Packages that stand for causal-conv1d, mamba-ssm and fla-core: what they have raises, as it does on a CPU."""
    modules = ["causal_conv1d", "fla.ops.gated_delta_rule", "fla.ops.kda", "mamba_ssm.ops.selective_scan_interface"]
    modules += ["mamba_ssm.ops.triton.selective_state_update", "mamba_ssm.ops.triton.ssd_combined"]
    for module in modules:
        folder = tmp_path / module.replace(".", "/")
        folder.mkdir(parents=True)
        for package in [folder, *folder.relative_to(tmp_path).parents]:
            (tmp_path / package / "__init__.py").write_text(STAND_IN if package == folder else "")
    (tmp_path / "__init__.py").unlink()
    kinds = ["mamba", "mamba2", "falcon_mamba", "lfm2", "lfm2_moe", "jamba", "bamba", "falcon_h1", "granitemoehybrid"]
    kinds += ["nemotron_h", "zamba", "zamba2", "kimi_linear", "olmo_hybrid", "qwen3_5"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "scripts/sweep_models.py"), *kinds]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count(" trains ")) == (0, len(kinds)), done.stdout + done.stderr


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_a_sweep_finds(tmp_path, monkeypatch):
    page = tmp_path / "models.md"
    page.write_text(sweep_models.PAGE.read_text())
    monkeypatch.setattr(sweep_models, "PAGE", page)
    assert sweep_models.main([]) == 0
    assert page.read_text() == (ROOT / "docs/models.md").read_text()
