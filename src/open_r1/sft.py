"""Distillation: supervised fine-tuning on reasoning traces (SFT).

Traces are conversations (`messages`), prompt and completion columns, or plain text. With `--packing`, whole
documents share rows of `max_length` tokens. Documents never see each other, and nothing is padded.

    open-r1 sft --config recipes/SmolLM2-135M-Instruct/sft/config_demo.yaml
    python src/open_r1/sft.py --config R.yaml --learning_rate 2e-5
    accelerate launch --config_file recipes/accelerate_configs/zero3.yaml src/open_r1/sft.py --config R.yaml

The same command continues an interrupted run. `--dry_run` checks everything except training itself.
"""

from open_r1.options import parse_options
from open_r1.run.entry import exit_with_sentence
from open_r1.training.deepspeed_setup import prepare_deepspeed


def main(argv: list[str] | None = None) -> None:
    """Trains with the options in `argv` (default: the command line). Raises `UserError`."""
    prepare_deepspeed()
    classes = [f"open_r1.configs:{name}" for name in ("DataConfig", "SFTConfig", "ModelConfig")]
    script, args, model_config = parse_options(argv, *classes, prog="open-r1 sft", description=__doc__)

    from open_r1.data.load import load_train_and_eval  # imports torch, so the options are read first
    from open_r1.run.dry_run import dry_run_sft
    from open_r1.run.prepare import prepare_sft
    from open_r1.run.run import needs_eval
    from open_r1.run.trainers import SFTTrainer

    train, evaluation = load_train_and_eval(script, need_eval=needs_eval(args))
    if script.dry_run:
        dry_run_sft(script, args, model_config, prepare_sft(script, args, model_config, train, evaluation))
        return
    SFTTrainer(model_config, args, train_dataset=train, eval_dataset=evaluation, **vars(script)).train()


if __name__ == "__main__":
    exit_with_sentence(main)
