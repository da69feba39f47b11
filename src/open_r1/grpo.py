"""R1-Zero: reinforcement learning on problems with checkable answers (GRPO).

Sample a group of completions for each problem, score them, and move the policy towards those that beat their
group's mean. Choices made here: pure on-policy steps (one optimizer step per round of rollouts), no reference
model, loss averaged over all tokens (DAPO), groups without signal left out of the forward pass.

    open-r1 grpo --config recipes/SmolLM2-135M-Instruct/grpo/config_demo.yaml
    python src/open_r1/grpo.py --config R.yaml --learning_rate 1e-6
    accelerate launch --config_file recipes/accelerate_configs/ddp.yaml src/open_r1/grpo.py --config R.yaml

The same command continues a run that was interrupted. `--dry_run` checks everything short of training.
"""

import sys
from typing import Any

from open_r1.options import parse_options
from open_r1.run.entry import exit_with_sentence
from open_r1.training.deepspeed_setup import prepare_deepspeed


def main(argv: list[str] | None = None) -> None:
    """Trains as `argv` says (default: the command line). Raises UserError for what the user can mend."""
    prepare_deepspeed()
    argv = sys.argv[1:] if argv is None else argv
    classes = [f"open_r1.configs:{name}" for name in ("GRPOScriptArguments", "GRPOConfig", "ModelConfig")]
    script, args, model_config = parse_options(argv, *classes, prog="open-r1 grpo", description=__doc__)

    from open_r1.data.chat import prepare_tokenizer, stop_token_ids  # torch takes seconds: options were read first
    from open_r1.data.columns import require_gold
    from open_r1.data.load import load_train_and_eval
    from open_r1.data.prompts import drop_long_prompts, prompt_rows
    from open_r1.modeling.loading import context_length
    from open_r1.rewards import GRADED, get_reward_funcs
    from open_r1.run.benchmarks import Benchmarks
    from open_r1.run.dry_run import dry_run_grpo
    from open_r1.run.policy_engine import open_policy_engine
    from open_r1.run.run import Run, needs_eval
    from open_r1.training.grpo import GRPOTrainer
    from open_r1.training.model import load_causal_lm, load_config, load_policy

    tokenizer = prepare_tokenizer(
        model_config.model_name_or_path,
        model_config.model_revision,
        model_config.trust_remote_code,
        args.chat_template,
    )
    reward_funcs = get_reward_funcs(script)
    train, evaluation = load_train_and_eval(script, need_eval=needs_eval(args))
    limits = (context_length(load_config(model_config)), args.vllm_max_model_length)
    context = min((limit for limit in limits if limit is not None), default=None)
    compared = [name for name in script.reward_funcs if name in GRADED]

    def as_prompts(rows: Any) -> Any:
        require_gold(rows, script.dataset_answer_column, compared)
        rows = prompt_rows(
            rows, tokenizer, script.dataset_prompt_column, script.system_prompt, script.dataset_answer_column
        )
        return drop_long_prompts(rows, context, args.max_completion_length)

    with args.main_process_first(desc="prompts"):
        train, evaluation = as_prompts(train), evaluation and as_prompts(evaluation)
    benchmarks = Benchmarks(script, args, model_config, tokenizer)
    if script.dry_run:
        return dry_run_grpo(script, args, model_config, tokenizer, train, reward_funcs)

    run = Run("grpo", script, args, model_config)
    model = load_policy(model_config, args)
    needs_reference = args.beta != 0 and not model_config.use_peft
    stops = stop_token_ids(tokenizer, model.generation_config)
    engine = open_policy_engine(args, model_config, model, tokenizer, [train, evaluation], benchmarks.longest)
    trainer = GRPOTrainer(
        model,
        args,
        engine=engine,
        reward_funcs=reward_funcs,
        reward_names=script.reward_funcs,
        stop_token_ids=stops,
        reference=load_causal_lm(model_config) if needs_reference else None,
        tokenizer=tokenizer,
        train_dataset=train,
        eval_dataset=evaluation,
        recorder=run.recorder,
        callbacks=run.callbacks,
        stop_signals=run.stop_signals,
    )
    benchmarks.attach(trainer, stops)
    try:
        run.train(trainer, tokenizer, benchmarks)
    finally:
        engine.close()
    return None


if __name__ == "__main__":
    exit_with_sentence(main)
