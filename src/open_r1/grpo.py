"""R1-Zero: reinforcement learning on problems with checkable answers (GRPO).

Sample a group of completions for each problem, score them, and move the policy toward those that beat their
group's mean. The defaults: on-policy steps (one optimizer step per round of rollouts), no reference model, a loss
averaged over all tokens (DAPO), and no forward pass for groups without signal.

    open-r1 grpo --config recipes/SmolLM2-135M-Instruct/grpo/config_demo.yaml
    python src/open_r1/grpo.py --config R.yaml --learning_rate 1e-6
    accelerate launch --config_file recipes/accelerate_configs/ddp.yaml src/open_r1/grpo.py --config R.yaml

The same command continues an interrupted run. `--dry_run` checks everything except training itself.
"""

from open_r1.options import parse_options
from open_r1.run.entry import exit_with_sentence
from open_r1.training.deepspeed_setup import prepare_deepspeed


def main(argv: list[str] | None = None) -> None:
    """Trains with the options in `argv` (default: the command line). Raises `UserError`."""
    prepare_deepspeed()
    classes = [f"open_r1.configs:{name}" for name in ("GRPOScriptArguments", "GRPOConfig", "ModelConfig")]
    script, args, model_config = parse_options(argv, *classes, prog="open-r1 grpo", description=__doc__)

    from open_r1.data.load import load_train_and_eval  # imports torch, so the options are read first
    from open_r1.run.dry_run import dry_run_grpo
    from open_r1.run.prepare import prepare_grpo
    from open_r1.run.run import needs_eval
    from open_r1.run.trainers import GRPOTrainer

    train, evaluation = load_train_and_eval(script, need_eval=needs_eval(args))
    if script.dry_run:
        dry_run_grpo(script, args, model_config, prepare_grpo(script, args, model_config, train, evaluation))
        return
    trainer = GRPOTrainer(model_config, args, train_dataset=train, eval_dataset=evaluation, **vars(script))
    try:
        trainer.train()
    finally:
        trainer.close()


if __name__ == "__main__":
    exit_with_sentence(main)
