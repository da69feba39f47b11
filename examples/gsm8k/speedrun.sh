#!/bin/sh
# The speedrun: from the downloaded SmolLM2-135M-Instruct to one that is evaluated on all of GSM8K's test set, in as
# little wall-clock time as possible on one GPU. What counts runs from the start of this script to its end: imports,
# compilation, engines, SFT, filter, GRPO and the greedy evaluation. Model and data are on the disk before.
#
#   MODEL=folder TRAIN=gsm8k_train.jsonl.gz DATA_DIR=folder NOTE="what changed" examples/gsm8k/speedrun.sh
#
# A stopped run continues with the same command, and the seconds of all its sittings count. At the end, the script prints
# a row for the table in README.md and appends it to $OUT/log.md. Look at the test set once per record: choose settings
# with HELD_OUT=1000, which evaluates on the last 1,000 training problems instead and trains on none of them.
#
#   OUT=runs/speedrun SEED=42 FILTER=0 SFT_ARGS=... FILTER_ARGS=... GRPO_ARGS=... examples/gsm8k/speedrun.sh
#   RECIPE="--traces words --passes 8" examples/gsm8k/speedrun.sh    # options of speedrun.py, see its --help
#   SMOKE=1 examples/gsm8k/speedrun.sh    # every command on a few rows and steps, also on a CPU
#
# Afterwards, off the clock, 8 samples of the model and its SFT, and their paired difference:
#   for stage in sft grpo; do
#       open-r1 evaluate --model runs/speedrun/$stage --tasks runs/speedrun/gsm8k_test.jsonl --num-samples 8 \
#           --max-new-tokens 512 --system-prompt "$SYSTEM_PROMPT" --output runs/speedrun/samples/$stage
#   done
#   open-r1 compare runs/speedrun/samples/sft runs/speedrun/samples/grpo
set -eu
cd "$(dirname "$0")/../.."
OUT="${OUT:-runs/speedrun}"
SEED="${SEED:-42}"
mkdir -p "$OUT"
export SPEEDRUN_CLOCK="$OUT/clock.txt"
compiled="$(cd "$OUT" && pwd)/compiled" # compilation counts
export TORCHINDUCTOR_CACHE_DIR="$compiled" TRITON_CACHE_DIR="$compiled/triton"
echo "begin start $(date +%s) -" >>"$SPEEDRUN_CLOCK"
# shellcheck disable=SC2086
python3 examples/gsm8k/speedrun.py "$OUT" --model "${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}" \
    --train "${TRAIN:-openai/gsm8k}" ${DATA_DIR:+--data-dir "$DATA_DIR"} --seed "$SEED" \
    --held-out "${HELD_OUT:-0}" ${SMOKE:+--smoke} ${RECIPE:-}
if grep -q "^end grpo [0-9]* 0" "$SPEEDRUN_CLOCK"; then
    python3 examples/gsm8k/record.py "$OUT" --seed "$SEED" --note "${NOTE:-}"
fi
