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
#   OUT=runs/speedrun SEED=42 GRPO_STEPS=150 FILTER=0 SFT_ARGS=... FILTER_ARGS=... GRPO_ARGS=... EVALUATE_ARGS=...
#   SMOKE=1 examples/gsm8k/speedrun.sh    # every command on a few rows and steps, also on a CPU
#
# Afterwards, off the clock, 8 samples and paired differences of the model, its SFT and the base:
#   STAGES="base sft grpo" OUT=runs/speedrun examples/gsm8k/run.sh && python examples/gsm8k/results.py runs/speedrun
set -eu
cd "$(dirname "$0")/../.."
OUT="${OUT:-runs/speedrun}"
SEED="${SEED:-42}"
GRPO_STEPS="${GRPO_STEPS:-150}"
export OUT
export SFT_ARGS="--seed $SEED --save_strategy no ${SFT_ARGS:-}"
export FILTER_ARGS="--num-generations 4 --min 0.2 --max 0.8 ${FILTER_ARGS:-}"
export GRPO_ARGS="--seed $SEED --max_steps $GRPO_STEPS ${GRPO_ARGS:-}"
mkdir -p "$OUT"

mark() { echo "$1 $2 $(date +%s) $3" >>"$OUT/clock.txt"; }
timed() { # stage, command...
    stage=$1
    shift
    if grep -q "^end $stage [0-9]* 0$" "$OUT/clock.txt" 2>/dev/null; then return; fi
    mark begin "$stage" -
    "$@"
    mark end "$stage" 0
    stage=
}
stage=
trap 'status=$?; [ -z "$stage" ] || mark end "$stage" $status; exit $status' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

timed sft env STAGES=sft EVALUATE= examples/gsm8k/run.sh
[ "${FILTER:-1}" = 0 ] || timed filter env STAGES=filter examples/gsm8k/run.sh
timed grpo env STAGES=grpo EVALUATE=grpo PROTOCOL=greedy examples/gsm8k/run.sh
python3 examples/gsm8k/speedrun.py "$OUT" --seed "$SEED" --note "${NOTE:-}"
