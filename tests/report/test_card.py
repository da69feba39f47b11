import pytest
from huggingface_hub import ModelCard
from toys import make_model, make_tokenizer

from open_r1.configs import GRPOConfig, GRPOScriptArguments
from open_r1.report.card import changed_options, write_model_card
from open_r1.report.environment import plain


def card(folder, **changes):
    arguments = {
        "base_model": "org/base-1B",
        "task": "grpo",
        "dataset": "org/problems",
        "config": {"beta": 0.04, "num_generations": 8, "hub_token": "s3cret", "output_dir": str(folder)},
        "metrics": {"reward": 1.5, "rewards/accuracy/mean": 0.75, "time/scoring": 0.123},
    }
    path = write_model_card(folder, **(arguments | changes))
    return ModelCard.load(path), path.read_text()


def test_the_card_has_the_header_that_the_hub_reads(tmp_path):
    parsed, text = card(tmp_path / "my-model")
    assert parsed.data.base_model == "org/base-1B"
    assert parsed.data.datasets == ["org/problems"]
    assert parsed.data.library_name == "transformers"
    assert "# my-model" in text
    assert "| `rewards/accuracy/mean` | `0.75` |" in text
    assert "0.123" not in text


def test_only_options_that_differ_from_the_defaults_are_listed(tmp_path):
    _, text = card(tmp_path)
    assert "| `beta` | `0.04` |" in text
    assert "num_generations" not in text
    assert "s3cret" not in text
    assert changed_options("sft", {"max_length": 1024, "packing": True, "learning_rate": 2e-5}) == {"packing": True}


def test_a_run_with_defaults_lists_nothing():
    assert changed_options("grpo", plain(GRPOConfig()) | plain(GRPOScriptArguments())) == {}


def test_local_paths_stay_out_of_the_card(tmp_path, monkeypatch):
    (tmp_path / "secret-place/base").mkdir(parents=True)
    parsed, text = card(
        tmp_path / "out",
        base_model=str(tmp_path / "secret-place/base"),
        dataset=[str(tmp_path / "secret-place/rows.jsonl"), "org/more"],
    )
    assert parsed.data.base_model is None
    assert parsed.data.datasets == ["org/more"]
    assert "secret-place" not in text
    assert "`base`" in text and "`rows.jsonl`" in text
    config = {
        "chat_template": "~/secret-place/chat.jinja",
        "reward_funcs": [f"{tmp_path}/secret-place/rewards.py:mine", "accuracy"],
        "gradient_checkpointing_kwargs": {"file": f"{tmp_path}/secret-place/file"},
    }
    words = ["grpo.py", f"--output_dir={tmp_path}/secret-place/run", "--dataset_name", f"{tmp_path}/secret-place/rows"]
    monkeypatch.setattr("sys.argv", words)
    _, text = card(tmp_path / "out", config=config)
    assert "secret-place" not in text and str(tmp_path) not in text
    assert "--output_dir=run --dataset_name rows" in text and "| `chat_template` | `chat.jinja` |" in text
    assert "`['rewards.py:mine', 'accuracy']`" in text


@pytest.mark.parametrize(
    ("program", "shown"),
    [("/env/bin/open-r1", "open-r1 grpo --beta 0.1"), ("/x/my.py", "python my.py grpo --beta 0.1")],
)
def test_the_command_in_the_card_can_be_typed(tmp_path, monkeypatch, program, shown):
    monkeypatch.setattr("sys.argv", [program, "grpo", "--beta", "0.1"])
    assert f"```bash\n{shown}\n```" in card(tmp_path)[1]


def test_the_lines_that_use_the_model_run(tmp_path, capsys):
    folder = make_tokenizer(tmp_path / "a 'model'")
    make_model(folder)
    _, text = card(folder)
    code = text.partition("```python\n")[2].partition("```")[0].replace("'a \\'model\\''", repr(str(folder)))
    code = code.replace("\"a 'model'\"", repr(str(folder))).replace("max_new_tokens=512", "max_new_tokens=4")
    exec(compile(code, "card", "exec"), {})
    assert "AutoPeftModelForCausalLM" in card(folder, config={"use_peft": True})[1]
