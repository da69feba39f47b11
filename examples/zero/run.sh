#!/bin/sh
# R1-Zero on one task of growing difficulty and one GPU: problems, the base model on the held-out ones, GRPO from the
# base model with the right answer as the only reward, and the trained model on the same held-out problems. Several seeds
# train at the same time. Run it again to continue; finished stages are skipped.
#
#   examples/zero/run.sh sums 1                    # a task of tasks.py, and seeds
#   examples/zero/run.sh sums 1 2 & examples/zero/run.sh countdown 1 2 & wait
#   python examples/zero/results.py runs/zero      # the table, curves, and completions before and after
#
#   MODEL=folder OUT=runs/zero GRPO_ARGS=... TASKS_ARGS=... EVALUATE_ARGS=... examples/zero/run.sh sums 1
#   SMOKE=1 examples/zero/run.sh sums 1            # a few problems and steps: does every command work here?
#
# Problems are used once, in their order: with --max_steps N in GRPO_ARGS give --problems N*32 in TASKS_ARGS.
set -eu
cd "$(dirname "$0")/../.."
task="${1:?which task? sums, largest, sequences or countdown}"
shift
MODEL="${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
OUT="${OUT:-runs/zero}"
reward=examples/zero/number.py:number
rewards="$reward"
if [ "$task" = countdown ]; then
    reward=examples/zero/countdown.py:countdown
    rewards="$reward examples/zero/countdown.py:numbers_used --reward_weights 1.0 0.2"
fi
if [ -n "${SMOKE:-}" ]; then
    TASKS_ARGS="${TASKS_ARGS:-} --problems 64 --held-out 12"
    GRPO_ARGS="${GRPO_ARGS:-} --max_steps 2 --per_device_train_batch_size 8 --num_generations 4 \
--max_completion_length 16 --max_tokens_per_microbatch 2048 --save_steps 1"
    EVALUATE_ARGS="${EVALUATE_ARGS:-} --num-samples 2 --max-new-tokens 16"
fi

# shellcheck disable=SC2086
evaluate() { # model, folder
    [ -f "$2/held_out/results.json" ] || open-r1 evaluate --model "$1" \
        --tasks "$OUT/$task/data/held_out.jsonl" --prompt '{problem}' --reward $reward \
        --num-samples 4 --temperature 0.7 --top-p 1 --max-new-tokens 160 --output "$2" ${EVALUATE_ARGS:-}
}

# shellcheck disable=SC2086
train() { # folder, seed
    [ ! -f "$1/config.json" ] || return 0
    began=$(date +%s)
    status=0
    open-r1 grpo --model_name_or_path "$MODEL" --config recipes/SmolLM2-135M-Instruct/grpo/config_zero.yaml \
        --dataset_name "$OUT/$task/data/problems.jsonl" --reward_funcs $rewards --seed "$2" --output_dir "$1" \
        ${GRPO_ARGS:-} || status=$?
    [ ! -d "$1" ] || echo $(($(date +%s) - began)) >>"$1/seconds.txt" # of each sitting
    return $status
}

# shellcheck disable=SC2086
[ -f "$OUT/$task/data/held_out.jsonl" ] || python3 examples/zero/tasks.py "$task" "$OUT/$task/data" ${TASKS_ARGS:-}
trap 'trap "" TERM; kill 0; wait; exit 143' INT TERM
evaluate "$MODEL" "$OUT/$task/base" &
jobs=$!
for seed in "${@:-1}"; do
    run="$OUT/$task/seed-$seed"
    { train "$run" "$seed" && evaluate "$run" "$run/evaluation"; } &
    jobs="$jobs $!"
done
failed=0
for job in $jobs; do wait "$job" || failed=$?; done
exit $failed
