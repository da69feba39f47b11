"""Invariant 8: every recipe in recipes/ parses and dry-runs."""

import json
import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from evaluation.code.programs import SUM
from toys import make_model, make_tokenizer
from transformers import Qwen2Config

from open_r1 import cli, grpo, sft
from open_r1.configs import DataConfig, GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig
from open_r1.curation import pass_rate
from open_r1.errors import UserError
from open_r1.options import parse_options
from open_r1.training.optimizers import why_not_sharded

ROOT = Path(__file__).parents[1]
LAUNCHERS = sorted((ROOT / "recipes" / "accelerate_configs").glob("*.yaml"))
FILTERS = sorted((ROOT / "recipes" / "dataset_filtering").glob("*.yaml"))
RECIPES = sorted(set((ROOT / "recipes").rglob("*.yaml")) - {*LAUNCHERS, *FILTERS})


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
        "OpenR1-Distill-7B/sft/config_distill.yaml",
        "OlympicCoder-7B/sft/config_v00.00.yaml",
        "OlympicCoder-32B/sft/config_v00.00.yaml",
        "DeepSeek-R1-Distill-Qwen-1.5B/grpo/config_demo.yaml",
        "Qwen2.5-1.5B-Instruct/grpo/config_demo_code.yaml",
        "Qwen2.5-1.5B-Instruct/grpo/config_demo_code_ioi.yaml",
        "Qwen2.5-Coder-7B-Instruct/grpo/config_codeforces.yaml",
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
    assert "--accelerator fsdp" not in path.read_text() or why_not_sharded(training) is None
    if is_grpo:
        assert training.per_device_train_batch_size % training.num_generations == 0


@pytest.mark.parametrize("path", LAUNCHERS, ids=name)
def test_accelerate_reads_its_configs(path):
    config = load_config_from_file(str(path))
    assert config.num_processes == 8
    assert config.mixed_precision == "bf16"


def program_columns(i):
    """The columns of open-r1's datasets of programs."""
    tests = [{"input": "", "output": str(2 * i)}]
    return {
        "id": f"sum{i}",
        "verification_info": {"language": "python", "test_cases": tests},
        "official_tests": tests,
        "test_cases": tests,
        "language": "python",
        "time_limit": 2.0,
        "memory_limit": 256,
    }


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    make_model(make_tokenizer(folder / "model", pad=None), arch="llama", max_position_embeddings=32768)
    rows = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i), **program_columns(i)} for i in range(300)]
    (folder / "lcb_v4.jsonl").write_text(json.dumps(SUM) + "\n")
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    turns = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "<think>\n2\n</think>\n2"}]
    (folder / "traces.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 64)
    return folder


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_dry_runs(path, toy, tmp_path, capsys):
    is_grpo = "reward_funcs" in yaml.safe_load(path.read_text())
    argv = ["--config", str(path), "--model_name_or_path", str(toy / "model"), "--output_dir", str(tmp_path / "out")]
    argv += ["--dataset_name", str(toy / ("problems.jsonl" if is_grpo else "traces.jsonl")), "--no-dataset_config"]
    argv += ["--dry_run"]
    if is_grpo:
        argv += ["--dataset_prompt_column", "problem", "--benchmarks_data_dir", str(toy)]
    (grpo if is_grpo else sft).main(argv)
    shown = capsys.readouterr().out
    assert "Everything except training itself was checked" in shown
    assert "effective batch" in shown
    assert "memory" in shown
    assert not (tmp_path / "out").exists()


def test_the_layout_memory_and_time_of_a_distillation_at_32k_are_shown(tmp_path, capsys):
    """Of the shape of Qwen2.5-Math-7B, on 8 GPUs that are not here."""
    size = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064}
    Qwen2Config(num_attention_heads=28, num_key_value_heads=4, **size).save_pretrained(tmp_path)
    recipe = str(ROOT / "recipes/OpenR1-Distill-7B/sft/config_distill.yaml")
    words = ["--accelerator", "fsdp", "--gpus-per-node", "8", "--gpu-memory", "80", "--dry-run", recipe]
    with pytest.raises(SystemExit) as end:
        cli.main(["launch", *words, "--model_name_or_path", str(tmp_path)])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(7.6B parameters)" in shown
    assert "128 rows (8 x 8 steps x 2 groups of 4 processes)" in shown
    memory = float(
        re.search(r"memory per process about ([\d.]+) GiB: states 14\.2, .* \(computed\); a GPU has 80 GiB", shown)[1]
    )
    assert 14.2 < memory < 40
    assert re.search(r"time per step at most about \d+ s of training on H100s \(computed\)", shown)


@pytest.mark.parametrize("path", FILTERS, ids=name)
def test_a_filter_dry_runs(path, toy, tmp_path, capsys):
    words = ["--config", str(path), "--hf_dataset", str(toy / "problems.jsonl"), "--prompt_column", "problem"]
    pass_rate.main([*words, "--no-hf_dataset_config", "--output", str(tmp_path / "out"), "--dry_run"])
    assert "300 problems x 8 answers would be sampled" in capsys.readouterr().out


def test_all_filters_are_there():
    assert [path.name for path in FILTERS] == ["config_demo.yaml", "filter_dapo.yaml", "filter_python.yaml"]


def test_a_dry_run_finds_a_gold_answer_that_misses_the_maximum(toy, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"problem": "1 + 1?", "answer": "\\\\frac{"}\n' * 80)
    argv = ["--model_name_or_path", str(toy / "model"), "--dataset_name", str(tmp_path / "bad.jsonl"), "--dry_run"]
    with pytest.raises(UserError, match=r"reward 'accuracy' .* row 1"):
        grpo.main([*argv, "--dataset_prompt_column", "problem", "--output_dir", str(tmp_path / "out")])
