#!/bin/sh
# SmolLM2-135M-Instruct learns to program, on one GPU in about ten minutes: SFT on programs of our own making, GRPO
# with hidden tests on longer ones, and pass@1 on tasks that neither has seen, before and after.
#
#   examples/programs/run.sh                                         # the model from the hub
#   MODEL=folder OUT=runs/programs SFT_ARGS=... GRPO_ARGS=... MEASURE_ARGS=... examples/programs/run.sh
set -eu
cd "$(dirname "$0")/../.."
MODEL="${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
OUT="${OUT:-runs/programs}"
recipes=recipes/SmolLM2-135M-Instruct

# shellcheck disable=SC2086
measure() { python3 examples/programs/measure.py "$1" "$OUT/data/held_out.jsonl" ${MEASURE_ARGS:-}; }

# shellcheck disable=SC2086
[ -f "$OUT/data/held_out.jsonl" ] || python3 examples/programs/tasks.py "$OUT/data" ${TASKS_ARGS:-}
# shellcheck disable=SC2086
open-r1 sft --config $recipes/sft/config_programs.yaml --model_name_or_path "$MODEL" \
    --dataset_name "$OUT/data/traces.jsonl" --output_dir "$OUT/sft" ${SFT_ARGS:-}
measure "$OUT/sft"
# shellcheck disable=SC2086
open-r1 grpo --config $recipes/grpo/config_programs.yaml --model_name_or_path "$OUT/sft" \
    --dataset_name "$OUT/data/problems.jsonl" --output_dir "$OUT/grpo" ${GRPO_ARGS:-}
measure "$OUT/grpo"
