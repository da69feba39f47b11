"""Reads from a recipe what a launch needs: the task, the options, the size of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from open_r1.configs import DataConfig, GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig
from open_r1.errors import UserError
from open_r1.launch.layout import Generation, Job
from open_r1.modeling.architectures import skeleton
from open_r1.options import parse_options
from open_r1.options.values import read_yaml
from open_r1.run.estimate import Shape, shape_of
from open_r1.run.model_size import model_size
from open_r1.training.model import load_config

CHECKOUT = Path(__file__).parents[3]

BATCH_OPTIONS = {"learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps"}


@dataclass(frozen=True)
class Recipe:
    """A recipe and the options after it, parsed and checked."""

    path: Path
    task: Literal["sft", "grpo"]
    overrides: tuple[str, ...]
    """Words after the recipe that are the entry script's."""
    script: DataConfig
    args: Any
    """`SFTConfig` or `GRPOConfig`."""
    model: ModelConfig


def read_recipe(name: str, overrides: list[str]) -> Recipe:
    """Raises UserError if there is no such recipe (naming those of its model), or for an option that is wrong."""
    path = find_recipe(name)
    task = task_of(path, overrides)
    classes: tuple[type, ...] = (
        (GRPOScriptArguments, GRPOConfig, ModelConfig) if task == "grpo" else (DataConfig, SFTConfig, ModelConfig)
    )
    argv = ["--config", str(path), *overrides]
    script, args, model = parse_options(argv, *classes, prog=f"open-r1 {task}", description="")
    return Recipe(path, task, tuple(overrides), script, args, model)


def find_recipe(name: str) -> Path:
    """The file, from here or from the checkout. Raises UserError that lists the recipes of that model."""
    for path in (Path(name), CHECKOUT / name):
        if path.is_file():
            return path
    folder = recipes_folder()
    words = Path(name).parts
    models = sorted({path.relative_to(folder).parts[0] for path in _recipes(folder)})
    model = next((word for word in words if word in models), None)
    if model is None:
        raise UserError(
            f"recipe {name}: no such file, and there are no recipes for that model. Models with recipes: "
            f"{', '.join(models)}."
        )
    found = [str(Path(folder.name) / path.relative_to(folder)) for path in _recipes(folder / model)]
    raise UserError(f"recipe {name}: no such file. Recipes for {model}: {', '.join(found)}.")


def task_of(path: Path, overrides: list[str]) -> Literal["sft", "grpo"]:
    """By the folder (`recipes/<model>/<task>/`), else by the options that only GRPO has."""
    folder = path.absolute().parent.name
    if folder == "grpo":
        return "grpo"
    if folder == "sft":
        return "sft"
    names = {*read_yaml(path), *_option_names(overrides)}
    only_grpo = {"reward_funcs", "num_generations", "max_completion_length", "use_vllm", "beta"}
    return "grpo" if names & only_grpo else "sft"


def find_accelerator(name: str) -> Path:
    """The file of `ddp`, `zero3` ..., or of a path. Raises UserError that lists them."""
    if Path(name).is_file():
        return Path(name)
    folder = recipes_folder() / "accelerate_configs"
    path = folder / f"{Path(name).stem}.yaml"
    if path.is_file() and Path(name).name in (path.name, path.stem):
        return path
    names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
    raise UserError(f"--accelerator is {name}: expected one of {names}, or a configuration file of accelerate.")


def distributed_type(config: Path) -> str:
    """What a file of accelerate's asks for: FSDP, DEEPSPEED, MULTI_GPU ... Raises UserError if it is no such file."""
    try:
        content = read_yaml(config)
    except UserError as error:
        raise UserError(
            f"--accelerator is {config}, which is not a configuration file of accelerate: {error}"
        ) from None
    return str(content["distributed_type"].value) if "distributed_type" in content else ""


def recipes_folder() -> Path:
    """`recipes` here, else that of the checkout."""
    return next((f for f in (Path("recipes"), CHECKOUT / "recipes") if f.is_dir()), Path("recipes"))


def job_of(recipe: Recipe, accelerator: str, tp: int | None, dp: int | None) -> Job:
    """The recipe as numbers; the model's size comes from its configuration, or from its name."""
    args = recipe.args
    parameters, heads = model_size(recipe.model)
    grpo = recipe.task == "grpo"
    return Job(
        task=recipe.task,
        generation=generation_of(recipe),
        parameters=parameters,
        attention_heads=heads,
        per_device_batch=args.per_device_train_batch_size,
        accumulation=args.gradient_accumulation_steps,
        sequence_parallel=args.sequence_parallel_size,
        num_generations=args.num_generations if grpo else None,
        tensor_parallel=tp,
        data_parallel=dp,
        accelerator=accelerator,
        adapters=recipe.model.use_peft,
        recipe_learning_rate=None if BATCH_OPTIONS & _option_names(recipe.overrides) else args.learning_rate,
    )


def _option_names(words: Sequence[str]) -> set[str]:
    """The options among the words of a command line."""
    return {word[2:].split("=")[0].replace("-", "_") for word in words if word.startswith("--")}


def generation_of(recipe: Recipe) -> Generation:
    """What samples the completions; which engine runs on training GPUs is decided there."""
    if recipe.task == "sft":
        return "none"
    args = recipe.args
    if args.uses_vllm_servers:
        return "external" if args.vllm_server_base_url else "server"
    return "policy" if args.engine == "transformers" else "colocate"


def shape_of_model(model: ModelConfig) -> Shape | None:
    """What memory and time are computed from; None if the model's configuration cannot be read here."""
    try:
        config = load_config(model)
    except UserError:
        return None
    return shape_of(config, skeleton(config, model.trust_remote_code), model)


def _recipes(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.yaml") if p.parent.name in ("sft", "grpo"))
