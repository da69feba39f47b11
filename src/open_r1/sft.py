"""Distillation: supervised fine-tuning on reasoning traces (SFT).

Traces are conversations (`messages`), prompt and completion columns, or plain text. With `--packing` whole
documents are fitted into rows of `max_length` tokens; documents never see each other, and nothing is padded.

    open-r1 sft --config recipes/SmolLM2-135M-Instruct/sft/config_demo.yaml
    python src/open_r1/sft.py --config R.yaml --learning_rate 2e-5
    accelerate launch --config_file recipes/accelerate_configs/zero3.yaml src/open_r1/sft.py --config R.yaml

The same command continues a run that was interrupted. `--dry_run` checks everything short of training.
"""

import sys

from open_r1.options import parse_options
from open_r1.run.entry import exit_with_sentence
from open_r1.training.deepspeed_setup import prepare_deepspeed


def main(argv: list[str] | None = None) -> None:
    """Trains as `argv` says (default: the command line). Raises UserError for what the user can mend."""
    prepare_deepspeed()
    argv = sys.argv[1:] if argv is None else argv
    classes = [f"open_r1.configs:{name}" for name in ("DataConfig", "SFTConfig", "ModelConfig")]
    script, args, model_config = parse_options(argv, *classes, prog="open-r1 sft", description=__doc__)

    from open_r1.data.chat import prepare_tokenizer, stop_token_ids  # torch takes seconds: options were read first
    from open_r1.data.load import load_train_and_eval
    from open_r1.data.sft import tokenize_sft
    from open_r1.run.benchmarks import Benchmarks
    from open_r1.run.dry_run import dry_run_sft
    from open_r1.run.run import Run, needs_eval
    from open_r1.training.model import load_policy
    from open_r1.training.sft import SFTTrainer, packed_rows

    tokenizer = prepare_tokenizer(
        model_config.model_name_or_path,
        model_config.model_revision,
        model_config.trust_remote_code,
        args.chat_template,
        args.eos_token,
    )
    train, evaluation = load_train_and_eval(script, need_eval=needs_eval(args))
    with args.main_process_first(desc="tokenizing"):
        train, evaluation = (
            rows and packed_rows(tokenize_sft(rows, tokenizer, args, script.system_prompt), args)
            for rows in (train, evaluation)
        )
    benchmarks = Benchmarks(script, args, model_config, tokenizer)
    if script.dry_run:
        return dry_run_sft(script, args, model_config, tokenizer, train)

    run = Run("sft", script, args, model_config)
    model = load_policy(model_config, args)
    stops = stop_token_ids(tokenizer, model.generation_config)
    model.generation_config.eos_token_id = list(stops)
    trainer = SFTTrainer(
        model,
        args,
        tokenizer=tokenizer,
        train_dataset=train,
        eval_dataset=evaluation,
        recorder=run.recorder,
        callbacks=run.callbacks,
        stop_signals=run.stop_signals,
    )
    benchmarks.attach(trainer, stops)
    run.train(trainer, tokenizer, benchmarks)
    return None


if __name__ == "__main__":
    exit_with_sentence(main)
