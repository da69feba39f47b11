"""The model card of every trained model."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1.files import write_text
from open_r1.report.environment import REMOVED, command_line, git_commit, package_versions, plain, redacted
from open_r1.report.recorder import BYSTANDERS

METHODS = {
    "sft": "supervised fine-tuning on reasoning traces",
    "grpo": "group relative policy optimization (GRPO, [arXiv 2402.03300](https://arxiv.org/abs/2402.03300)): "
    "reinforcement learning on completions whose answers can be checked",
}
_NOT_SHOWN = re.compile(r"_.*|accelerator_config|model_name_or_path|dataset_name|dataset_mixture")

_PASSING_FIGURES = re.compile(r"time/.*|.*/none|.*_per_second|total_flos|learning_rate|grad_norm|train_loss")


def write_model_card(
    output_dir: Path | str,
    *,
    base_model: str,
    task: str,
    dataset: str | Sequence[str] | None,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Path:
    """Writes `<output_dir>/README.md`: which model was trained on which data, how, and with what result.

    `task` is `sft` or `grpo`, `config` the resolved options (flat), `metrics` the final figures. Hub ids go into the
    header that the hub reads; local paths do not. It needs no network.
    """
    from huggingface_hub import ModelCardData

    output_dir = Path(output_dir)
    datasets = [dataset] if isinstance(dataset, str) else list(dataset or [])
    header = ModelCardData(
        base_model=base_model if is_hub_id(base_model) else None,
        datasets=[name for name in datasets if is_hub_id(name)] or None,
        library_name="peft" if config.get("use_peft") else "transformers",
        pipeline_tag="text-generation",
        tags=["open-r1", task],
    )
    parts = [
        f"---\n{header.to_yaml()}\n---",
        f"# {output_dir.resolve().name}",
        f"{code(short(base_model))} after {METHODS.get(task, task)}"
        + (f", on {', '.join(code(short(name)) for name in datasets)}" if datasets else "")
        + ". Trained with Open R1."
        + (" These are LoRA adapters: load them on top of that model." if config.get("use_peft") else ""),
        "## How to use it",
        usage(output_dir.resolve().name, bool(config.get("use_peft"))),
        "## How it was trained",
        f"```bash\n{shown_command(command_line())}\n```",
    ]
    changed = changed_options(task, config)
    if changed:
        parts += ["Options that differ from the defaults:", table("option", changed)]
    figures = {
        key: value
        for key, value in metrics.items()
        if isinstance(value, int | float) and not _PASSING_FIGURES.fullmatch(key)
    }
    if figures:
        parts += ["## Figures at the end of training", table("metric", figures)]
    versions = {**package_versions(), "commit": git_commit() or "no checkout"}
    parts += ["## Versions", table("package", versions)]
    parts.append(
        "The folder `run/` next to this file has every option"
        + (
            ", the metrics of every step and every completion with its rewards."
            if task == "grpo"
            else " and the metrics of every step."
        )
    )
    path = output_dir / "README.md"
    output_dir.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def usage(name: str, adapters: bool) -> str:
    """Python code that loads the model from the folder `name` and asks it a question."""
    package, loader = ("peft", "AutoPeftModelForCausalLM") if adapters else ("transformers", "AutoModelForCausalLM")
    lines = [
        f"from {package} import {loader}",
        "from transformers import AutoTokenizer",
        "",
        f"model = {loader}.from_pretrained({name!r})",
        f"tokenizer = AutoTokenizer.from_pretrained({name!r})",
        'messages = [{"role": "user", "content": "What is 12 + 30?"}]',
        'inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", '
        "return_dict=True)",
        "output = model.generate(**inputs, max_new_tokens=512)",
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    return "```python\n" + "\n".join(lines) + "\n```"


def shown_command(words: Sequence[str]) -> str:
    """The words that started the process as a line for the shell, without the folders of this machine."""
    program = Path(words[0]).name
    start = ["open-r1"] if program in ("open-r1", "cli.py") else ["python", program]
    return shlex.join([*start, *map(without_folders, words[1:])])


def without_folders(value: Any) -> Any:
    """Absolute paths shortened to their last part, also after `--option=` and in lists and mappings: the folders of one
    machine mean nothing elsewhere."""
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    option, equals, path = value.rpartition("=") if value.startswith("-") else ("", "", value)
    return option + equals + (Path(path).name or path if path.startswith(("/", "~")) else path)


def changed_options(task: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options in `config` that differ from the task's defaults on this machine."""
    from open_r1.configs import DataConfig, GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig

    script, training = (GRPOScriptArguments(), GRPOConfig()) if task == "grpo" else (DataConfig(), SFTConfig())
    defaults = plain(ModelConfig(model_name_or_path="any")) | plain(script) | plain(training)
    return {
        key: value
        for key, value in redacted(plain(config)).items()
        if value not in (None, REMOVED, "")
        and not BYSTANDERS.fullmatch(key)
        and not _NOT_SHOWN.fullmatch(key)
        and value != defaults.get(key)
    }


def is_hub_id(name: str) -> bool:
    """Whether `name` could be a hub id rather than a local path."""
    return bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)) and name not in (".", "..") and not Path(name).exists()


def short(name: str) -> str:
    """A hub id unchanged; the last part of a local path."""
    return name if is_hub_id(name) else Path(name).resolve().name


def code(value: Any) -> str:
    """`value` as inline code in Markdown, safe inside a table."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(kind: str, rows: Mapping[str, Any]) -> str:
    """A Markdown table of names and values."""
    lines = [f"| {kind} | value |", "|---|---|"]
    for key, value in rows.items():
        shown = f"{value:.6g}" if isinstance(value, float) else value
        lines.append(f"| {code(key)} | {code(without_folders(shown))} |")
    return "\n".join(lines)
