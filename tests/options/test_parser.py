from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import yaml

from open_r1.configs import DataConfig, GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig
from open_r1.errors import UserError
from open_r1.options import default_hub_model_id, parse_known, parse_options, resolved_options
from open_r1.options.annotations import Alias, Commas, Positional, Range, Repeated

MODEL = ["--model_name_or_path", "M"]


def sft(*argv, **recipe):
    return parse_options([*MODEL, *argv], ModelConfig, DataConfig, SFTConfig, prog="sft", description="")


def grpo(*argv):
    return parse_options([*MODEL, *argv], ModelConfig, GRPOScriptArguments, GRPOConfig, prog="grpo", description="")


def write(folder: Path, recipe: str) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(recipe)
    return ["--config", str(path)]


def test_the_command_line_that_open_r1_users_know():
    command = (
        "--dataset_name D --learning_rate 2.0e-5 --num_train_epochs 1 --packing --max_seq_length 4096 "
        "--per_device_train_batch_size 2 --gradient_accumulation_steps 8 --gradient_checkpointing --bf16 --output_dir O"
    )
    model, data, training = sft(*command.split())
    assert (model.model_name_or_path, data.dataset_name) == ("M", "D")
    assert (training.learning_rate, training.num_train_epochs, training.max_length) == (2e-5, 1.0, 4096)
    assert training.packing is training.bf16 is training.gradient_checkpointing is True
    assert training.push_to_hub is False


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--learning_rate=1e-6"], "learning_rate", 1e-6),
        (["--learning-rate", "3"], "learning_rate", 3.0),
        (["--max_steps", "-1"], "max_steps", -1),
        (["--packing", "false"], "packing", False),
        (["--packing", "--no_packing"], "packing", False),
        (["--no-gradient-checkpointing"], "gradient_checkpointing", False),
        (["--eval_strategy", "no"], "eval_strategy", "no"),
        (["--run_name", "1e3"], "run_name", "1e3"),
        (["--run_name", "on: off"], "run_name", "on: off"),
        (["--run_name", "null"], "run_name", "null"),
        (["--run_name", "x", "--no_run_name"], "run_name", None),
        (["--report_to", "wandb", "trackio"], "report_to", ["wandb", "trackio"]),
        (["--lr_scheduler_kwargs", '{"min_lr": 1e-6}'], "lr_scheduler_kwargs", {"min_lr": 1e-6}),
        (
            ["--gradient_checkpointing_kwargs", "{use_reentrant: false}"],
            "gradient_checkpointing_kwargs",
            {"use_reentrant": False},
        ),
    ],
)
def test_values_on_the_command_line(argv, name, value):
    assert getattr(sft(*argv)[2], name) == value


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "x # y",
        "'quoted'",
        '"q"',
        "  led",
        "null",
        "~",
        "",
        "-5 + 3",
        "[a",
        "[a]",
        "{a: 1}",
        "2024-13-45",
        "yes",
        "é\t",
    ],
)
def test_a_text_is_what_was_typed(text):
    _, data, training = sft(f"--system_prompt={text}", "--output_dir", f"runs/{text}", "--hub_model_id", text)
    assert (data.system_prompt, training.output_dir, training.hub_model_id) == (text, f"runs/{text}", text)
    assert grpo("--reward_funcs", "x # y", text or "a")[1].reward_funcs == ["x # y", text or "a"]
    assert sft("--model_revision", text)[0].model_revision == text


def test_no_option_unsets(tmp_path):
    config = write(tmp_path, "system_prompt: Think.\nbenchmarks: [gsm8k]\nmax_length: 5\nbf16: true\ndtype: bfloat16")
    _, data, training = sft(*config, "--no_system_prompt", "--no-benchmarks", "--no_dtype", "--no_bf16")
    assert (data.system_prompt, training.benchmarks, training.dtype, training.bf16) == (None, None, None, False)
    with pytest.raises(UserError, match="unknown option 'no_max_length'"):
        sft("--no_max_length")


def test_lists_on_the_command_line():
    _, script, _ = grpo("--reward_funcs", "accuracy", "format")
    assert script.reward_funcs == ["accuracy", "format"]
    assert grpo("--reward_funcs", "accuracy")[1].reward_funcs == ["accuracy"]
    assert grpo("--reward_funcs", "[a, 'b:c']", "--reward_weights", "1", "0.5")[2].reward_weights == [1.0, 0.5]


def test_a_recipe_and_what_overrides_it(tmp_path):
    config = write(
        tmp_path,
        """
learning_rate: 1e-6        # PyYAML reads this as text
eval_strategy: no          # and this as false
run_name: 007
model_revision: 12345e6
report_to: wandb
dataset_mixture:
  datasets: [{id: a, weight: 1e-1}]
packing: true
""",
    )
    model, data, training = sft(*config, "--no_packing", "--learning_rate", "2e-6")
    assert (training.learning_rate, training.packing) == (2e-6, False)
    assert sft(*config)[2].learning_rate == 1e-6
    assert (training.eval_strategy, training.run_name, model.model_revision) == ("no", "007", "12345e6")
    assert data.dataset_mixture["datasets"][0]["weight"] == 0.1


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("packng: true", r"recipe.yaml, line 1: unknown option 'packng'. Did you mean 'packing'\?"),
        ("a: b", r"recipe.yaml, line 1: unknown option 'a'."),
        ("\nlearning_rate: fast", "recipe.yaml, line 2: learning_rate is 'fast': expected a number"),
        ("max_length: 1.5", "max_length is '1.5': expected a whole number"),
        ("max_length: null", "max_length is 'null': expected a whole number"),
        ("packing: 3", "packing is '3': expected true or false"),
        ("run_name: [a]", r"run_name is \['a'\]: expected text"),
        ("dtype: float8", "dtype is 'float8': expected one of float32, bfloat16"),
        ("save_strategy: sometimes", "expected one of no, steps, epoch, best"),
        ("dataset_mixture: 3", "expected a mapping, as YAML or JSON"),
        ("max_length: 1\nseed: 2\nmax_length: 3", "line 3: max_length has another value in .*line 1: remove one"),
        ("max_length: 1\nmax_seq_length: 1", "line 2: max_length is set twice, once under an older name"),
        ("- max_length", "expected lines of the form `option: value`"),
        ("a: [1,\nb: 2", r"recipe.yaml, line 2: this is not valid YAML"),
        ("\nlearning_rate: .inf", "line 2: learning_rate is '.inf': expected a finite number"),
        ("max_length: .nan", "max_length is '.nan': expected a finite number"),
        ("learning_rate: 1e400", "learning_rate is '1e400': expected a finite number"),
        ("learning_rate: 2024-13-45", "learning_rate is '2024-13-45': expected a number"),
        ("a: 2024-99-99", "unknown option 'a'"),
        ("lr_scheduler_kwargs: !!timestamp 2024-99-99", "the value of lr_scheduler_kwargs cannot be read"),
        (f"max_steps: {'9' * 5000}", "line 1: the value of max_steps cannot be read"),
        ("seed: 1\n? [1, 2]\n: 3", "line 2: expected the name of an option, found a list or a mapping"),
        ("lr_scheduler_kwargs: {[1]: 2}", "line 1: this is not valid YAML"),
        ("seed: " + "[" * 5000 + "]" * 5000, "recipe.yaml: brackets are nested too deeply"),
        ("seed: 1\nrun_name: a\0b", "line 2: the character 0x0000 is not allowed in YAML"),
        ("max_grad_norm: -.inf", "max_grad_norm is '-.inf': expected a finite number"),
    ],
)
def test_mistakes_in_a_recipe_are_named_with_their_line(tmp_path, recipe, message):
    with pytest.raises(UserError, match=message):
        sft(*write(tmp_path, recipe))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lerning_rate", "1"], "command line: unknown option 'lerning_rate'. Did you mean 'learning_rate'"),
        (["--max_length", "long"], "command line: max_length is 'long': expected a whole number"),
        (["--max_length"], "command line: max_length is True: expected a whole number"),
        (["--run_name"], "run_name is True: expected text"),
        (["--max_length", "1", "2"], r"max_length is \['1', '2'\]: expected a whole number"),
        (["--learning_rate", "inf"], "learning_rate is 'inf': expected a number"),
        (["--learning_rate", "1e400"], "learning_rate is '1e400': expected a finite number"),
        (["--learning_rate", "-1"], "learning_rate is -1.0: it must be at least 0"),
        (["--vllm_server_port", "70000"], "unknown option 'vllm_server_port'"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config has 2 files"),
        (["--save_strategy", "epoch", "--load_best_model_at_end"], "load_best_model_at_end requires"),
    ],
)
def test_mistakes_on_the_command_line_are_named(argv, message):
    with pytest.raises(UserError, match=message):
        sft(*argv)


def test_a_recipe_without_config_in_front_is_explained():
    with pytest.raises(UserError, match="write --config recipe"):
        parse_options(["recipe.yaml"], ModelConfig, prog="sft", description="")


def test_a_missing_recipe_lists_those_beside_it(tmp_path, monkeypatch):
    (tmp_path / "recipes" / "M" / "sft").mkdir(parents=True)
    (tmp_path / "recipes" / "M" / "sft" / "config_demo.yaml").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("recipes/M/sft/config.yaml", "elsewhere.yaml", "recipes/N/config.yaml"):
        with pytest.raises(UserError, match=r"no such file. There are: recipes/M/sft/config_demo.yaml."):
            sft("--config", name)


def test_everything_resolved_is_a_recipe_again(tmp_path):
    argv = [
        "--output_dir",
        "O",
        "--max_length",
        "7",
        "--report_to",
        "none",
        "--hub_token",
        "secret",
        "--warmup_ratio",
        "0.1",
    ]
    flat = resolved_options(*sft(*argv, "--lr_scheduler_kwargs", "{a: 1}"))
    assert flat["max_length"] == 7
    assert flat["model_name_or_path"] == "M"
    assert "secret" not in str(flat) and "hub_token" not in flat
    config = write(tmp_path, yaml.safe_dump(flat))
    again = parse_options(config, ModelConfig, DataConfig, SFTConfig, prog="sft", description="")
    assert resolved_options(*again) == flat


def test_help_shows_docstrings_in_groups_and_an_example(capsys):
    with pytest.raises(SystemExit) as exit_:
        sft("--help")
    shown = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "  Common: model_name_or_path, dataset_name," in shown
    assert "Common:\n  --model_name_or_path  (text)\n      Hub id or local folder of the model." in shown
    assert "--learning_rate  (a number, at least 0, default 2e-05)\n      Peak learning rate." in shown
    assert shown.index("\nCommon:") < shown.index("\nBenchmarks:") < shown.index("\nOptimizer (transformers):")
    assert shown.index("\nOptimizer (transformers):") < shown.index("--adam_beta1  (a number, default 0.9)")
    assert shown.rstrip().endswith("Example:\n  sft --config recipe.yaml --learning_rate 1e-6")


def test_other_dataclasses_need_no_training_arguments():
    @dataclass
    class Options:
        name: str
        count: int = 3

    (options,) = parse_options(["--name", "x"], Options, prog="p", description="")
    assert (options.name, options.count) == ("x", 3)
    with pytest.raises(UserError, match="name"):
        parse_options([], Options, prog="p", description="")


def test_python_checks_ranges_too():
    with pytest.raises(UserError, match="epsilon is -1: it must be at least 0"):
        GRPOConfig(output_dir="x", epsilon=-1)
    with pytest.raises(UserError, match="learning_rate is '1e-4': it must be a number"):
        GRPOConfig(output_dir="x", learning_rate="1e-4")
    with pytest.raises(UserError, match="vllm_server_port is 70000: it must be at most 65535"):
        GRPOConfig(output_dir="x", vllm_server_port=70000)


def test_hub_model_id_defaults_to_the_user_and_the_task(monkeypatch):
    monkeypatch.setattr("huggingface_hub.whoami", lambda token: {"name": "ada"})
    assert default_hub_model_id("Qwen/Qwen2.5-1.5B", "grpo") == "ada/Qwen2.5-1.5B-grpo"


def test_more_processes_than_gpus_is_one_sentence(monkeypatch):
    monkeypatch.setattr("open_r1.configs.has_accelerator", lambda: True)
    monkeypatch.setattr("open_r1.configs.cuda_has_bf16", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="3 processes were started on this machine, but it has 2 GPUs"):
        SFTConfig(output_dir="x")


@dataclass(kw_only=True)
class Ask:
    """A question."""

    question: Annotated[str, Positional("QUESTION")]
    """What to ask."""
    against: list[str] | None = None
    column: Annotated[list[str] | None, Repeated()] = None
    tasks: Annotated[tuple[str, ...], Commas()] = ()
    k: Annotated[list[Annotated[int, Range(at_least=1)]] | None, Commas()] = None
    url: Annotated[str | None, Alias("server_url")] = None
    subset: Annotated[str | None, Alias("config")] = None
    limit: Annotated[int | None, Range(at_least=1)] = None
    output: Path | None = None
    dry_run: bool = False


def asked(*argv):
    return parse_options(list(argv), Ask, prog="p", description="")[0]


@pytest.mark.parametrize(
    "argv",
    [
        ["--dry-run", "why?", "--limit", "3"],
        ["why?", "--dry_run", "--limit=3"],
        ["--limit", "3", "--dry-run=yes", "--question", "why?"],
        ["--limit", "3", "--dry-run", "--", "why?"],
    ],
)
def test_a_word_without_a_name_may_stand_anywhere(argv):
    options = asked(*argv)
    assert (options.question, options.dry_run, options.limit) == ("why?", True, 3)


def test_a_positional_word_is_exact_too():
    for text in ("-5 + 3 # sum", "null", "--what is it?", "'x'"):
        assert asked(text).question == text
    assert asked("--", "--what").question == "--what"


def test_lists_aliases_and_paths(tmp_path):
    options = asked("q", "--against", "a", "b # c", "--tasks", "x,y", "--column", "a", "--column", "b", "--k=1,5")
    assert (options.against, options.tasks, options.column, options.k) == (
        ["a", "b # c"],
        ("x", "y"),
        ["a", "b"],
        [1, 5],
    )
    assert asked("--column", "a", "q").question == "q"
    assert asked("q", "--server-url", "http://a,http://b", "--output", "runs/a #2").url == "http://a,http://b"
    config = write(tmp_path, "question: q\ntasks: [x, y]\nk: [1, 5]\nserver_url: u\noutput: runs/b\ndry_run: true")
    options = asked(*config, "--config", "main", "--output", "o")
    assert (options.tasks, options.k, options.url, options.subset) == (("x", "y"), [1, 5], "u", "main")
    assert (options.output, options.dry_run) == (Path("o"), True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], r"question is missing: give QUESTION or --question \(see p --help\)"),
        (["a", "b"], "'b' does not belong to an option"),
        (["a", "--limit"], "--limit needs a value"),
        (["a", "--limit", "0"], "limit is 0: it must be at least 1"),
        (["a", "--k", "1,x"], "k is '1,x': expected"),
        (["a", "--num_generations", "3"], "unknown option 'num_generations'"),
        (["a", "--overwrite_output_dir"], "unknown option 'overwrite_output_dir'"),
        (["a", "--config", "missing.yaml"], "--config missing.yaml: there is no such file"),
    ],
)
def test_mistakes_with_words_are_named(argv, message):
    with pytest.raises(UserError, match=message):
        asked(*argv)


def test_an_alias_and_its_option_in_a_file_say_the_same(tmp_path):
    with pytest.raises(UserError, match="server_url and url are the same option"):
        asked("q", *write(tmp_path, "url: a\nserver_url: b"))


def test_what_is_not_known_can_be_handed_on():
    (options,), rest = parse_known(
        ["r.yaml", "--limit", "2", "--lr", "1", "--config", "x", "-O3", "--question=q"], Ask, prog="p", description=""
    )
    assert (options.limit, options.question, options.subset) == (2, "q", "x")
    assert rest == ["r.yaml", "--lr", "1", "-O3"]
