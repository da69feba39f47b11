"""Invariant 8: every recipe in recipes/ parses."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from open_r1.configs import DataConfig, GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig
from open_r1.options import parse_options

ROOT = Path(__file__).parents[1]
LAUNCHERS = sorted((ROOT / "recipes" / "accelerate_configs").glob("*.yaml"))
RECIPES = sorted(set((ROOT / "recipes").rglob("*.yaml")) - set(LAUNCHERS))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


def test_the_recipes_that_the_readme_promises_are_there():
    promised = [
        "Qwen2.5-1.5B-Instruct/sft/config_demo.yaml",
        "Qwen2.5-1.5B-Instruct/grpo/config_demo.yaml",
        "Qwen2.5-Math-7B/grpo/config_simple_rl.yaml",
        "Llama-3.2-1B-Instruct/sft/config_demo.yaml",
        "Llama-3.2-1B-Instruct/grpo/config_demo.yaml",
        "SmolLM2-135M-Instruct/sft/config_demo.yaml",
        "SmolLM2-135M-Instruct/grpo/config_demo.yaml",
    ]
    assert set(promised) <= {name(path) for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_parses_and_needs_no_old_names(path, caplog):
    is_grpo = "reward_funcs" in yaml.safe_load(path.read_text())
    classes = (GRPOScriptArguments, GRPOConfig) if is_grpo else (DataConfig, SFTConfig)
    _, data, training = parse_options(["--config", str(path)], ModelConfig, *classes, prog="test", description="")
    assert caplog.messages == []
    assert data.dataset_name or data.dataset_mixture
    assert training.output_dir.startswith("runs/")
    assert training.push_to_hub is False
    if is_grpo:
        assert training.per_device_train_batch_size % training.num_generations == 0


@pytest.mark.parametrize("path", LAUNCHERS, ids=name)
def test_accelerate_reads_its_configs(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 8
    assert config.mixed_precision == "bf16"
