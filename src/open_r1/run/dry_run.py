"""`--dry_run`: checks everything except training itself, and shows what would run."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from open_r1.configs import DataConfig, GRPOConfig, GRPOScriptArguments, ModelConfig, SFTConfig, TrainConfig
from open_r1.errors import UserError
from open_r1.modeling.architectures import check_sequence_parallel, skeleton
from open_r1.modeling.attention import unused_dropout
from open_r1.modeling.loading import load_generation_config
from open_r1.rewards import BEST, check_golds, gold_completion, score
from open_r1.rewards.accuracy import golds_of
from open_r1.run.checks import options_without_effect, room_warning
from open_r1.run.estimate import estimate_seconds, shape_of, split_of
from open_r1.run.memory import estimate_memory
from open_r1.run.policy_engine import describe_engine, policy_engine
from open_r1.run.prepare import GRPOInputs, SFTInputs
from open_r1.run.preview import show_prompts, show_rows
from open_r1.training.grpo_batches import check_batch
from open_r1.training.model import checkpoint_of, load_config
from open_r1.training.optimizers import why_unusable
from open_r1.training.saveable import check_saveable

ROWS_CHECKED = 8


def dry_run_grpo(
    script: GRPOScriptArguments,
    args: GRPOConfig,
    model: ModelConfig,
    inputs: GRPOInputs,
) -> None:
    """Scores the gold answers of the first prompts with every reward; raises UserError if one is below its maximum."""
    prompts = inputs.train
    check_batch(args, len(prompts), len(script.reward_funcs))
    rows = [prompts[i] for i in range(min(ROWS_CHECKED, len(prompts)))]
    check_gold_scores(script.reward_funcs, inputs.reward_funcs, rows)
    completions = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.data_parallel_size
    per_step = completions // args.num_generations
    longest = max(len(ids) for ids in prompts["prompt_ids"])
    steps = len(prompts) // (per_step * args.steps_per_generation // args.gradient_accumulation_steps)  # type: ignore[operator]
    _show(
        "grpo",
        args,
        model,
        inputs.tokenizer,
        {
            "prompts": f"{len(prompts):,} (longest {longest:,} tokens)",
            "rewards": ", ".join(script.reward_funcs) + " (gold answers get the maximum)",
            **ungradable_golds(prompts, script.reward_funcs),
            "effective batch": f"{completions:,} completions = {per_step:,} prompts x {args.num_generations}",
            "steps": _steps(args, steps * args.max_steps_per_rollout),
            "tokens per step, at most": f"{completions * (longest + args.max_completion_length):,}",
            "completions by": describe_engine(args, model),
            **_engine_memory(args, model),
        },
        longest_sequence=longest + args.max_completion_length,
        tokens_a_step=completions * (longest + args.max_completion_length),
        mean_sequence=longest + args.max_completion_length,
    )
    show_prompts(prompts, Console())


def dry_run_sft(script: DataConfig, args: SFTConfig, model: ModelConfig, inputs: SFTInputs) -> None:
    """Shows rows, tokens and batch of a fine-tuning run."""
    rows = inputs.train
    lengths = [len(ids) for ids in rows.dataset["input_ids"]]
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.data_parallel_size
    learned = sum(map(sum, rows.dataset["loss_mask"]))
    filled = f", {sum(lengths) / (len(rows) * args.max_length):.0%} full" if args.packing else ""
    _show(
        "sft",
        args,
        model,
        inputs.tokenizer,
        {
            "documents": f"{len(lengths):,} (longest {max(lengths):,} tokens)",
            "tokens": f"{sum(lengths):,}, of which {learned:,} are learned",
            "rows": f"{len(rows):,}{filled}",
            "effective batch": f"{batch:,} rows",
            "steps": _steps(args, -(-len(rows) // batch)),
        },
        longest_sequence=max(lengths),
        tokens_a_step=sum(lengths) * batch // max(len(rows), batch),
        mean_sequence=sum(n * n for n in lengths) / sum(lengths),
    )
    show_rows(rows.dataset, inputs.tokenizer, Console())


def check_gold_scores(names: Sequence[str], funcs: Sequence[Callable], rows: Sequence[dict[str, Any]]) -> None:
    """Raises UserError if a reward does not give its maximum to a gold answer."""
    if not any(name in rows[0] for name in ("answer", "solution")):
        return
    golds = golds_of([row.get("solution") for row in rows], [row.get("answer") for row in rows], len(rows))
    if not all(golds):
        return
    columns = {k: [row[k] for row in rows] for k in rows[0] if k not in ("prompt", "prompt_ids", "prompt_text")}
    scores = score(
        funcs,
        names=names,
        prompts=[row["prompt"] for row in rows],
        prompt_texts=[row["prompt_text"] for row in rows],
        completions=[gold_completion(g, prompt=row["prompt_text"]) for g, row in zip(golds, rows, strict=True)],
        columns=columns,
    )
    for name in names:
        for i, (row, gold) in enumerate(zip(scores, golds, strict=True), start=1):
            if name in BEST and row[name] != BEST[name]:
                raise UserError(
                    f"reward {name!r} gives {row[name]} to the gold answer of row {i} ({gold!r}); it should give "
                    f"{BEST[name]}. Check the columns `answer` and `solution` of the dataset."
                )


def ungradable_golds(prompts: Any, reward_funcs: Sequence[str]) -> dict[str, str]:
    """The numbers, from 1, of the rows whose gold answer cannot be graded."""
    if "accuracy" not in reward_funcs:
        return {}
    solution, answer = (prompts[c] if c in prompts.column_names else None for c in ("solution", "answer"))
    reasons = check_golds(golds_of(solution, answer, len(prompts)))
    rows = [f"row {i} ({reason})" for i, reason in enumerate(reasons, start=1) if reason]
    shown = "; ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return {"ungradable golds": f"{len(rows)}: {shown}" if rows else "none"}


def _engine_memory(args: GRPOConfig, model: ModelConfig) -> dict[str, str]:
    """The memory that the engine uses on the training GPU."""
    if policy_engine(args, config := load_config(model)) != "native":
        return {}
    weights = 2 * sum(p.numel() for p in skeleton(config, model.trust_remote_code).parameters()) / 2**30
    share = args.vllm_gpu_memory_utilization
    return {"memory of the engine": f"{weights:.1f} GiB of weights, and a cache of up to {share:.0%} of the GPU"}


def _steps(args: TrainConfig, per_epoch: int) -> str:
    total = args.max_steps if args.max_steps > 0 else round(per_epoch * args.num_train_epochs)
    return f"{total:,} ({per_epoch:,} per epoch)"


def _show(
    task: str,
    args: TrainConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    facts: dict[str, str],
    longest_sequence: int,
    tokens_a_step: int,
    mean_sequence: float,
) -> None:
    config = load_config(model)
    check_sequence_parallel(config, args.sequence_parallel_size, model.trust_remote_code)
    check_saveable(str(model.model_name_or_path), config, load_generation_config(checkpoint_of(model)), tokenizer)
    shape = shape_of(config, skeleton(config, model.trust_remote_code), model)
    parameters = shape.parameters
    memory = estimate_memory(shape, args, model, longest_sequence, args.world_size, split_of(args))
    seconds = estimate_seconds(shape, args, tokens_a_step, mean_sequence, args.world_size)
    table = Table("dry run", task, title="Everything except training itself was checked", title_justify="left")
    for name, value in {
        "model": f"{model.model_name_or_path} ({parameters / 1e6:,.1f}M parameters)",
        "device": f"{args.device.type} x {args.world_size} processes, {'bfloat16' if args.bf16 else 'float32'}",
        **facts,
        "memory per process": f"{memory} (computed)",
        "time per step": f"about {seconds:,.1f} s of training on H100s (computed)",
        "output": str(args.output_dir),
    }.items():
        table.add_row(name, value)
    room = None if model.use_peft else room_warning(args, parameters, parameters)
    notes = [*options_without_effect(args), *filter(None, [unused_dropout(config), room, why_unusable(args)])]
    if args.world_size % args.sequence_parallel_size:
        notes.append(
            f"sequence_parallel_size is {args.sequence_parallel_size}, so training needs a multiple of that many "
            "processes. Batch and steps above are for one group; open-r1 launch --dry-run shows those of a cluster."
        )
    Console().print(table, *(f"note: {note}" for note in notes), sep="\n")
