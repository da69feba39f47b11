#!/bin/sh
# What matters for a small model: eight settings of GRPO, two seeds each, for the same time on the same problems, one
# after the other on one GPU. Each is evaluated on the held-out problems. Run it again to continue: what is finished is
# skipped, and a run that was stopped begins again (each takes about two minutes).
#
#   examples/what_matters/run.sh
#   python examples/what_matters/table.py runs/what-matters
#
#   MODEL=folder OUT=runs/what-matters SECONDS_EACH=75 SEEDS="1 2" SETTINGS="dapo cispo" examples/what_matters/run.sh
#   SMOKE=1 examples/what_matters/run.sh           # every command on a few problems and steps, also on a CPU
set -eu
cd "$(dirname "$0")/../.."
MODEL="${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
OUT="${OUT:-runs/what-matters}"
SETTINGS="${SETTINGS:-dapo grpo dr_grpo gspo cispo clip-higher no-correction group-32}"
size="--problems 40000 --held-out 500"
samples="--num-samples 4 --max-new-tokens 192"
smoke=
if [ -n "${SMOKE:-}" ]; then
    size="--problems 256 --held-out 12"
    samples="--num-samples 2 --max-new-tokens 8"
    smoke=--smoke
fi

# shellcheck disable=SC2086
[ -f "$OUT/data/held_out.jsonl" ] || python3 examples/zero/tasks.py sums "$OUT/data" $size
for seed in ${SEEDS:-1 2}; do
    for setting in $SETTINGS; do
        run="$OUT/$setting/seed-$seed"
        [ -f "$run/evaluation/held_out/results.json" ] && continue
        if [ ! -f "$run/config.json" ]; then
            rm -rf "$run" # a checkpoint would give it more time than the others
            # shellcheck disable=SC2086
            python3 examples/what_matters/train.py "$setting" "$seed" "$run" \
                --model "$MODEL" --data "$OUT/data/problems.jsonl" --seconds "${SECONDS_EACH:-75}" $smoke
        fi
        # shellcheck disable=SC2086
        open-r1 evaluate --model "$run" --tasks "$OUT/data/held_out.jsonl" --prompt '{problem}' --temperature 1 \
            --top-p 1 $samples --output "$run/evaluation"
    done
done
