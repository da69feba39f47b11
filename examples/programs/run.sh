#!/bin/sh
# SmolLM2-135M-Instruct learns to program, on one GPU in about five minutes: SFT on programs of our own making, GRPO
# with hidden tests on longer ones, and pass@1 on tasks that neither has seen, before and after. Run it again to
# continue; finished stages are skipped.
#
#   examples/programs/run.sh                       # the model from the hub
#   python examples/programs/results.py runs/programs
#
#   MODEL=folder OUT=runs/programs TASKS_ARGS=... SFT_ARGS=... GRPO_ARGS=... MEASURE_ARGS=... examples/programs/run.sh
#   GRPO_SECONDS=120 examples/programs/run.sh      # GRPO stops after so long, and its last checkpoint is measured
#   CODE_PROVIDER=unsafe examples/programs/run.sh  # where neither bubblewrap nor Landlock works
#   SMOKE=1 examples/programs/run.sh               # a few tasks and steps: does every command work here?
set -eu
trap 'exit 143' TERM # once the stage has saved its checkpoint
cd "$(dirname "$0")/../.."
MODEL="${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
OUT="${OUT:-runs/programs}"
CODE_PROVIDER="${CODE_PROVIDER:-local}"
recipes=recipes/SmolLM2-135M-Instruct
if [ -n "${SMOKE:-}" ]; then
    TASKS_ARGS="--traces 64 --problems 64 --held-out 8 ${TASKS_ARGS:-}"
    SFT_ARGS="--max_steps 1 --max_length 256 --per_device_train_batch_size 2 ${SFT_ARGS:-}"
    GRPO_ARGS="--max_steps 2 --per_device_train_batch_size 8 --num_generations 4 --max_completion_length 16 \
--max_tokens_per_microbatch 2048 --save_steps 1 ${GRPO_ARGS:-}"
    MEASURE_ARGS="--samples 2 --max-tokens 16 ${MEASURE_ARGS:-}"
fi

# shellcheck disable=SC2086
measure() { # model, name
    [ -f "$OUT/$2.jsonl" ] || python3 examples/programs/measure.py "$1" "$OUT/data/held_out.jsonl" \
        --output "$OUT/$2.jsonl" --code-provider "$CODE_PROVIDER" ${MEASURE_ARGS:-}
}

# shellcheck disable=SC2086
[ -f "$OUT/data/held_out.jsonl" ] || python3 examples/programs/tasks.py "$OUT/data" ${TASKS_ARGS:-}
# shellcheck disable=SC2086
[ -f "$OUT/sft/README.md" ] || open-r1 sft --config $recipes/sft/config_programs.yaml \
    --model_name_or_path "$MODEL" --dataset_name "$OUT/data/traces.jsonl" --output_dir "$OUT/sft" ${SFT_ARGS:-}
measure "$OUT/sft" before
if [ ! -f "$OUT/grpo/README.md" ] && [ ! -f "$OUT/stopped" ]; then
    status=0
    # shellcheck disable=SC2086
    timeout --foreground --preserve-status --signal INT "${GRPO_SECONDS:-0}" open-r1 grpo \
        --config $recipes/grpo/config_programs.yaml --model_name_or_path "$OUT/sft" --code_provider "$CODE_PROVIDER" \
        --dataset_name "$OUT/data/problems.jsonl" --output_dir "$OUT/grpo" ${GRPO_ARGS:-} || status=$?
    case "$status:${GRPO_SECONDS:-0}" in
    0:*) ;;
    75:[1-9]*) touch "$OUT/stopped" ;; # interrupted, with a checkpoint
    *) exit "$status" ;;
    esac
fi
trained="$OUT/grpo"
[ -f "$trained/README.md" ] || trained="$(find "$OUT/grpo" -name 'checkpoint-*' -maxdepth 1 | sort -V | tail -n 1)"
measure "$trained" after
python3 examples/programs/results.py "$OUT"
