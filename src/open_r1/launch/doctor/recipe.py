"""Checks a recipe before it runs: model, tokenizer, template, data, rewards, batch, disk space for checkpoints."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from open_r1.data.chat import pad_token_id, render, stop_token_ids
from open_r1.data.columns import gold_path
from open_r1.data.load import load_train_and_eval
from open_r1.data.prompts import drop_long_prompts, prompt_rows
from open_r1.data.sft import tokenize_sft
from open_r1.devices import visible_devices
from open_r1.errors import UserError
from open_r1.files import free_space
from open_r1.installing import install_command
from open_r1.launch.doctor.finding import Finding, gib
from open_r1.launch.layout import Cluster, plan_layout
from open_r1.launch.recipe import Recipe, generation_of, job_of, read_recipe
from open_r1.modeling.loading import context_length, load_generation_config
from open_r1.report.trackers import tracker_problem
from open_r1.rewards import get_reward_funcs
from open_r1.run.dry_run import ROWS_CHECKED, check_gold_scores, ungradable_golds
from open_r1.run.policy_engine import describe_engine
from open_r1.run.prepare import load_tokenizer, longest_sequence
from open_r1.run.preview import CLOSE, OPEN, ROWS, marked_row, prompt_row
from open_r1.run.run import needs_eval
from open_r1.training.model import checkpoint_of, load_config

T = TypeVar("T")


class Checkup:
    """Checks that each return a value or record a problem. Checks that need a missing value are skipped."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def step(self, area: str, what: Callable[[], T], say: Callable[[T], str]) -> T | None:
        """The value of `what()`, recorded as a finding of `area`; None after a UserError, which becomes the finding."""
        try:
            value = what()
        except UserError as error:
            self.findings.append(Finding(area, "problem", str(error)))
            return None
        self.findings.append(Finding(area, "ok", say(value)))
        return value


def check_recipe(name: str, overrides: list[str]) -> list[Finding]:
    """Findings about a recipe, in the order in which a run would encounter them."""
    checkup = Checkup()
    recipe = checkup.step("recipe", lambda: read_recipe(name, overrides), lambda r: f"{r.path} ({r.task})")
    if recipe is None:
        return checkup.findings
    checkup.findings += _packages(recipe)
    config = checkup.step("model", lambda: load_config(recipe.model), lambda c: _model(recipe, c))
    if recipe.task == "grpo" and config is not None:
        checkup.step("engine", lambda: describe_engine(recipe.args, recipe.model), lambda text: text)
    tokenizer = checkup.step("tokenizer", lambda: load_tokenizer(recipe.args, recipe.model), _describe_tokenizer)
    if tokenizer is not None:
        checkup.step("chat template", lambda: _template(tokenizer), lambda text: text)
        checkup.findings += _end_token(tokenizer)
    rows = checkup.step(
        "data",
        lambda: load_train_and_eval(recipe.script, need_eval=needs_eval(recipe.args))[0],
        lambda d: f"{len(d):,} rows: {', '.join(d.column_names)}",
    )
    if tokenizer is not None and rows is not None:
        checkup.step("examples", lambda: _examples(recipe, tokenizer, rows), lambda text: text)
    if recipe.task == "grpo":
        functions = checkup.step(
            "rewards",
            lambda: get_reward_funcs(recipe.script),
            lambda _: ", ".join(recipe.script.reward_funcs),  # type: ignore[attr-defined]
        )
        if functions is not None and tokenizer is not None and rows is not None:
            checkup.step("golds", lambda: _golds(recipe, tokenizer, rows, functions), lambda text: text)
    checkup.step("layout", lambda: _layout(recipe), lambda text: text)
    checkup.findings += _checkpoints(recipe)
    return checkup.findings


def _packages(recipe: Recipe) -> Iterator[Finding]:
    wish = "engine: vllm" if getattr(recipe.args, "engine", "auto") == "vllm" else "vllm_mode: server"
    needs = (
        ("peft", "use_peft", recipe.model.use_peft, "use_peft false"),
        ("vllm", wish, generation_of(recipe) == "server", "engine auto and vllm_mode colocate"),
    )
    for package, option, needed, instead in needs:
        if needed and importlib.util.find_spec(package) is None:
            yield Finding(
                "recipe", "problem", f"{option} needs {package}", f"{install_command(package)}, or {instead}."
            )
    if problem := tracker_problem(recipe.args.report_to):
        text, _, remedy = problem.partition(": ")
        yield Finding("recipe", "problem", text, remedy)


def _model(recipe: Recipe, config: Any) -> str:
    parameters = job_of(recipe, "ddp", None, None).parameters
    size = f", {parameters / 1e6:,.1f}M parameters" if parameters else ""
    context = context_length(config)
    return (
        f"{recipe.model.model_name_or_path}: {config.model_type}{size}, context of {context or 'any number of'} tokens"
    )


def _describe_tokenizer(tokenizer: Any) -> str:
    own = tokenizer.pad_token
    pad = (
        repr(own)
        if own is not None
        else f"none of its own ({_token(tokenizer, pad_token_id(tokenizer))} fills, masked)"
    )
    return f"{len(tokenizer):,} tokens; ends with {tokenizer.eos_token!r}; pad token {pad}"


def _template(tokenizer: Any) -> str:
    text = render(tokenizer, [{"role": "user", "content": "1 + 1"}], add_generation_prompt=True)
    stops = ", ".join(_token(tokenizer, i) for i in stop_token_ids(tokenizer, None))
    return f"assistant turns begin after {text[-24:]!r} and end at {stops}"


def _end_token(tokenizer: Any) -> Iterator[Finding]:
    """An end token that opens turns is a mistake in tokenizer_config.json."""
    end = tokenizer.eos_token
    text = render(tokenizer, [{"role": "user", "content": "1 + 1"}], add_generation_prompt=True)
    if end is not None and end in text and re.match(r"\w", text.rpartition(end)[2]):
        remedy = "Set eos_token in its tokenizer_config.json, or use the original files of the model."
        yield Finding("tokenizer", "note", f"its end token {end!r} is the token that opens turns", remedy)


def _token(tokenizer: Any, token_id: int) -> str:
    return repr(tokenizer.convert_ids_to_tokens(token_id))


def _examples(recipe: Recipe, tokenizer: Any, rows: Any) -> str:
    some = rows.select(range(min(1000, len(rows))))
    if recipe.task == "sft":
        stops = stop_token_ids(tokenizer, load_generation_config(checkpoint_of(recipe.model)))
        tokenized = tokenize_sft(some, tokenizer, recipe.args, recipe.script.system_prompt, recipe.script, stops)
        lengths = [len(ids) for ids in tokenized["input_ids"]]
        facts = f"the first {len(some):,} give {len(lengths):,} documents, the longest of {max(lengths):,} tokens"
        shown = [marked_row(row, tokenizer) for row in tokenized.select(range(min(ROWS, len(tokenized))))]
        return "\n".join([f"{facts}; the first one, with the learned text between {OPEN} and {CLOSE}:", *shown])
    prompts = prompt_rows(some, tokenizer, recipe.script, recipe.script.system_prompt)
    context = longest_sequence(load_config(recipe.model), recipe.args)
    fitting = drop_long_prompts(prompts, context, recipe.args.max_completion_length)
    longest = max(len(ids) for ids in fitting["prompt_ids"])
    facts = f"the first {len(some):,} give {len(fitting):,} prompts, the longest of {longest:,} tokens"
    shown = [prompt_row(row) for row in fitting.select(range(min(ROWS, len(fitting))))]
    return "\n".join([f"{facts}; the first:", *shown])


def _golds(recipe: Recipe, tokenizer: Any, rows: Any, functions: Any) -> str:
    some = rows.select(range(min(ROWS_CHECKED, len(rows))))
    prompts = prompt_rows(some, tokenizer, recipe.script, recipe.script.system_prompt)
    names = recipe.script.reward_funcs  # type: ignore[attr-defined]
    check_gold_scores(names, functions, [prompts[i] for i in range(len(prompts))])
    moved = gold_path(rows, recipe.script.answer_column) is not None
    ungradable = ungradable_golds(prompts if moved else rows, names).get("ungradable golds", "none")
    return f"the first {len(some)} get every reward's maximum; ungradable in all {len(rows):,} rows: {ungradable}"


def _layout(recipe: Recipe) -> str:
    layout = plan_layout(Cluster(1, len(visible_devices())), job_of(recipe, "ddp", None, None))
    plural = "es" if layout.processes > 1 else ""
    batch = f"{layout.processes} training process{plural}, {layout.batch:,} sequences per step"
    if not layout.servers:
        return batch
    return f"{batch}, a generator {'beside it' if layout.on_cpu else 'on other GPUs'}"


def _checkpoints(recipe: Recipe) -> Iterator[Finding]:
    job = job_of(recipe, "ddp", None, None)
    if job.parameters is None or job.adapters:
        return
    free, existing = free_space(Path(recipe.args.output_dir))
    size = 12 * job.parameters
    limit = recipe.args.save_total_limit
    text = f"about {gib(size)} each (weights and Adam's moments), {limit or 'all'} kept; {gib(free)} are free"
    if free < size * ((limit or 1) + 1):
        yield Finding("checkpoints", "problem", text, f"Make room in {existing}, or give another output_dir.")
    else:
        yield Finding("checkpoints", "ok", text)
