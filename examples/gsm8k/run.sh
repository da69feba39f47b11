#!/bin/sh
# SmolLM2-135M-Instruct through the whole recipe on GSM8K and one GPU: SFT on worked solutions, GRPO on those of the
# problems that the model then solves sometimes, R1-Zero (GRPO without SFT, on all problems) beside it, and an
# evaluation on the test set of each model. Every stage goes on where it stopped when this is run again.
#
#   examples/gsm8k/run.sh                                          # model and data from the hub
#   MODEL=folder TRAIN=gsm8k_train.jsonl.gz DATA_DIR=folder OUT=runs/gsm8k examples/gsm8k/run.sh
#
# Tables and curves afterwards: python examples/gsm8k/results.py runs/gsm8k
# TRAIN has the columns problem, solution and answer; DATA_DIR holds gsm8k_test.jsonl[.gz]. STAGES picks stages, EVALUATE
# the models to evaluate after their stage, PROTOCOL the protocols. HELD_OUT=1000 keeps the last 1,000 training problems
# apart and evaluates on them instead of the test set. FILTER=0 gives GRPO all problems. SMOKE=1 runs every command on a
# few rows and steps. OUT and TRAIN have no spaces. Paths are relative to the project's folder.
set -eu
trap 'exit 143' TERM # once the stage has saved its checkpoint
cd "$(dirname "$0")/../.."
MODEL="${MODEL:-HuggingFaceTB/SmolLM2-135M-Instruct}"
OUT="${OUT:-runs/gsm8k}"
for path in "$OUT" "${TRAIN:-}"; do
    case $path in *" "*) echo "error: OUT or TRAIN is '$path': give a path without spaces" >&2 && exit 2 ;; esac
done
STAGES="${STAGES:-base sft filter grpo zero}"
EVALUATE="${EVALUATE-base sft grpo zero}"
PROTOCOL="${PROTOCOL:-greedy,deepseek}"
samples="--num-samples 8"
[ "$PROTOCOL" = greedy ] && samples=""
split=train
task=gsm8k
recipes=recipes/SmolLM2-135M-Instruct
system_prompt="$(python3 -c "import yaml; print(yaml.safe_load(open('$recipes/grpo/config_gsm8k.yaml'))['system_prompt'])")"
mkdir -p "$OUT"
if [ -n "${HELD_OUT:-}" ]; then
    split="train[:-$HELD_OUT]"
    task="$OUT/held_out.jsonl"
fi
if [ -n "${SMOKE:-}" ]; then
    SFT_ARGS="${SFT_ARGS:-} --max_steps 1 --max_length 512 --per_device_train_batch_size 1 --no-torch_compile"
    FILTER_ARGS="${FILTER_ARGS:-} --hf-dataset-split train[:4] --num-generations 2 --max-new-tokens 16 --min 0 --max 1"
    GRPO_ARGS="${GRPO_ARGS:-} --max_steps 1 --per_device_train_batch_size 8 --num_generations 4 \
--max_completion_length 16 --max_tokens_per_microbatch 2048"
    EVALUATE_ARGS="${EVALUATE_ARGS:-} --limit 2 --max-new-tokens 16"
    samples="${samples:+--num-samples 2}"
fi

if [ -n "${TRAIN:-}" ]; then
    column=problem
    problems="--dataset_name $TRAIN --no_dataset_config --dataset_prompt_column problem --dataset_train_split $split"
    filter_from="--hf-dataset $TRAIN --hf-dataset-split $split"
    traces_from="$TRAIN --problem problem --solution solution"
else
    column=question
    problems="--dataset_train_split $split"
    filter_from="--hf-dataset openai/gsm8k --hf-dataset-config main --hf-dataset-split $split"
    traces_from="openai/gsm8k --config main"
fi

evaluate() { # name, model
    case " $EVALUATE " in *" $1 "*) ;; *) return ;; esac
    # shellcheck disable=SC2086
    open-r1 evaluate --model "$2" --tasks "$task" ${DATA_DIR:+--data-dir "$DATA_DIR"} --protocol "$PROTOCOL" \
        $samples --max-new-tokens 512 --system-prompt "$system_prompt" --prompt '{problem}' \
        --output "$OUT/evaluation/$1" ${EVALUATE_ARGS:-}
}

for stage in $STAGES; do
    case $stage in
    base) evaluate base "$MODEL" ;;
    sft)
        # shellcheck disable=SC2086
        if [ ! -f "$OUT/traces.jsonl" ]; then
            python3 examples/gsm8k/traces.py $traces_from --held-out "${HELD_OUT:-0}" --output "$OUT/traces.part.jsonl"
            mv "$OUT/traces.part.jsonl" "$OUT/traces.jsonl"
        fi
        open-r1 sft --config $recipes/sft/config_gsm8k.yaml --model_name_or_path "$MODEL" \
            --dataset_name "$OUT/traces.jsonl" --output_dir "$OUT/sft" ${SFT_ARGS:-}
        evaluate sft "$OUT/sft"
        ;;
    filter)
        # shellcheck disable=SC2086
        [ -f "$OUT/problems/run/report.json" ] || open-r1 data pass-rate $filter_from --prompt-column $column \
            --answer-column answer --model "$OUT/sft" --system-prompt "$system_prompt" --num-generations 8 \
            --temperature 1.0 --top-p 1.0 --max-new-tokens 384 --min 0.05 --max 0.9 \
            --output "$OUT/problems" ${FILTER_ARGS:-}
        ;;
    grpo)
        from=$problems
        if [ "${FILTER:-1}" != 0 ]; then
            from="--dataset_name $OUT/problems --no_dataset_config --dataset_prompt_column $column"
            [ -d "$OUT/problems" ] || { echo "$OUT/problems is not there: run the stage filter first" >&2 && exit 2; }
        fi
        # shellcheck disable=SC2086
        open-r1 grpo --config $recipes/grpo/config_gsm8k.yaml --model_name_or_path "$OUT/sft" $from \
            --output_dir "$OUT/grpo" ${GRPO_ARGS:-}
        evaluate grpo "$OUT/grpo"
        ;;
    zero)
        # shellcheck disable=SC2086
        open-r1 grpo --config $recipes/grpo/config_gsm8k.yaml --model_name_or_path "$MODEL" $problems \
            --output_dir "$OUT/zero" ${GRPO_ARGS:-}
        evaluate zero "$OUT/zero"
        ;;
    *)
        echo "STAGES is $STAGES: $stage is none of base, sft, filter, grpo, zero" >&2
        exit 2
        ;;
    esac
done
