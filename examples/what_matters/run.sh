#!/bin/sh
# What matters for a small model: eight settings of GRPO, two seeds each, for the same time on the same problems, one
# after the other on one GPU, each evaluated on the held-out problems. Run it again to continue: finished runs are
# skipped, and a run that was stopped begins again.
#
#   examples/what_matters/run.sh
#
#   MODEL=folder OUT=runs/what-matters SECONDS_EACH=60 SEEDS="1 2" SETTINGS="dapo cispo" examples/what_matters/run.sh
#
# On two GPUs, a seed on each; the command that ends last writes the whole table:
#   CUDA_VISIBLE_DEVICES=0 SEEDS=1 examples/what_matters/run.sh & CUDA_VISIBLE_DEVICES=1 SEEDS=2 examples/what_matters/run.sh; wait
#
#   SMOKE=1 examples/what_matters/run.sh           # every command on a few problems and steps, also on a CPU
set -eu
cd "$(dirname "$0")/../.."
MODEL="${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
OUT="${OUT:-runs/what-matters}"
size="--problems 2560 --held-out 240"
[ -z "${SMOKE:-}" ] || size="--problems 256 --held-out 12"

if [ ! -d "$OUT/data" ]; then
    # shellcheck disable=SC2086
    python3 examples/zero/tasks.py sequences "$OUT/data.$$" $size
    if [ -e "$OUT/data" ]; then
        echo "$OUT/data was written by another command meanwhile: it has the same problems, and is used."
        rm -r "$OUT/data.$$"
    else
        mv "$OUT/data.$$" "$OUT/data"
    fi
fi
# shellcheck disable=SC2086
python3 examples/what_matters/train.py "$OUT" --model "$MODEL" --data "$OUT/data" --seconds "${SECONDS_EACH:-60}" \
    --seeds ${SEEDS:-1 2} ${SETTINGS:+--settings $SETTINGS} ${SMOKE:+--smoke}
python3 examples/what_matters/table.py "$OUT"
