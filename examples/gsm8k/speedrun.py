"""The stages of the speedrun, one after the other in one process: SFT, filter, GRPO with the evaluation at its end.

`speedrun.sh` starts it. A process imports and compiles once, and the engine that wrote GRPO's completions answers the
test problems too. Stages that `clock.txt` knows as ended are skipped; the one that was stopped continues.
"""

import argparse
import gc
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from traces import trace, without_marks, write
from variants import only_equations, passes

from open_r1 import grpo, sft
from open_r1.curation import pass_rate
from open_r1.data.load import load_split
from open_r1.evaluation.tasks import find_task, load_problems
from open_r1.run.entry import exit_with_sentence

RECIPES = Path("recipes/SmolLM2-135M-Instruct")
PASSES = 6
"""How often SFT sees each problem."""
SFT = "--learning_rate 1e-3 --num_train_epochs 1 --save_strategy no"
FILTER = "--num-generations 4 --min 0.2 --max 0.8"
GRPO = (
    "--max_steps 450 --per_device_train_batch_size 512 --learning_rate 4e-5 --gradient_checkpointing false "
    "--save_steps 1000"
)
LONGEST = {"words": 256, "equations": 128}
"""Most tokens of a completion, for the filter and GRPO."""
EVALUATION = "--benchmarks_protocol greedy --benchmarks_max_new_tokens 512"
SMOKE = {
    "SFT": "--max_steps 1 --max_length 512 --per_device_train_batch_size 1 --torch_compile false",
    "FILTER": "--hf-dataset-split train[:4] --num-generations 2 --max-new-tokens 16 --min 0 --max 1",
    "GRPO": "--max_steps 1 --per_device_train_batch_size 8 --num_generations 4 --max_completion_length 16 "
    "--max_tokens_per_microbatch 2048 --benchmarks_limit 2 --benchmarks_max_new_tokens 16",
}
"""A few rows and steps, also on a CPU."""


@contextmanager
def timed(clock: Path, stage: str) -> Iterator[None]:
    """Writes when the stage begins and ends into `clock`, as `record.py` reads it."""
    began, status = time.time(), 1
    _mark(clock, f"begin {stage} {began:.0f} -")
    try:
        yield
        status = 0
    finally:
        _mark(clock, f"end {stage} {time.time():.0f} {status}")


def _mark(clock: Path, line: str) -> None:
    with clock.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def write_data(args: argparse.Namespace) -> None:
    """`traces.jsonl` for SFT, `problems.jsonl` for the filter and GRPO, and `test.jsonl`. The held-out problems are the
    last ones, and then the test. The numbers of a problem change from pass to pass, and GRPO gets others than SFT."""
    rows = load_split(args.train, config="main" if args.train == "openai/gsm8k" else None)
    columns = ("question", "answer") if "question" in rows.column_names else ("problem", "solution")
    pairs = [(row[columns[0]], without_marks(row[columns[1]])) for row in rows]
    learned, held_out = pairs[: len(pairs) - args.held_out], pairs[len(pairs) - args.held_out :]
    test = [(problem, _gold(solution)) for problem, solution in held_out]
    if not args.held_out:
        test = [(p.problem, p.gold) for p in load_problems(find_task("gsm8k"), args.data_dir)]
    count = args.passes + args.grpo_passes
    every = passes(learned, count, args.seed) if args.new_numbers else [learned] * count
    varied = sum(new != old for new, old in zip(every[-1], learned, strict=True))
    print(f"{varied} of {len(learned)} problems have other numbers in the last pass")
    seen = [pair for each in every[: args.passes] for pair in each[: len(each) - args.apart]]
    traces = [(problem, _in_style(solution, args.traces)) for problem, solution in seen]
    write(args.out / "traces.jsonl", [{"messages": trace(problem, text)} for problem, text in traces if text])
    golds = {problem: _gold(solution) for each in every[args.passes :] for problem, solution in each}
    write(args.out / "problems.jsonl", [{"problem": problem, "answer": gold} for problem, gold in golds.items()])
    name = "held_out" if args.held_out else "gsm8k_test"
    prompts = [{"prompt": [{"role": "user", "content": problem}], "answer": gold} for problem, gold in test]
    write(args.out / f"{name}.jsonl", prompts)


def _gold(solution: str) -> str:
    return solution.rpartition("####")[2].strip()


def _in_style(solution: str, style: str) -> str | None:
    return solution if style == "words" else only_equations(solution)


def stages(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """What each stage does, by its name."""
    out, recipe = str(args.out), {name: str(RECIPES / name / "config_gsm8k.yaml") for name in ("sft", "grpo")}
    system_prompt = yaml.safe_load(Path(recipe["grpo"]).read_text(encoding="utf-8"))["system_prompt"]
    filtered = os.environ.get("FILTER", "1") != "0"
    problems = f"{out}/filtered" if filtered else f"{out}/problems.jsonl"
    test = f"{out}/{'held_out' if args.held_out else 'gsm8k_test'}.jsonl"
    seed = ["--seed", str(args.seed)]

    def options(name: str, chosen: str) -> list[str]:
        smoke = SMOKE[name] if args.smoke else ""
        return shlex.split(f"{chosen} {smoke} {os.environ.get(f'{name}_ARGS', '')}")

    def fine_tune() -> None:
        model = ["--config", recipe["sft"], "--model_name_or_path", args.model, "--output_dir", f"{out}/sft"]
        data = ["--dataset_name", f"{out}/traces.jsonl", "--dataset_num_proc", str(os.cpu_count())]
        sft.main([*model, *data, *seed, *options("SFT", SFT)])

    def pick_problems() -> None:
        data = ["--hf-dataset", f"{out}/problems.jsonl", "--prompt-column", "problem", "--answer-column", "answer"]
        model = ["--model", f"{out}/sft", "--system-prompt", system_prompt, "--temperature", "1", "--top-p", "1"]
        longest = f"--max-new-tokens {LONGEST[args.traces]}"
        pass_rate.main([*data, *model, "--output", problems, *seed, *options("FILTER", f"{FILTER} {longest}")])

    def reinforce() -> None:
        model = ["--config", recipe["grpo"], "--model_name_or_path", f"{out}/sft", "--output_dir", f"{out}/grpo"]
        data = ["--dataset_name", problems, "--no_dataset_config", "--dataset_prompt_column", "problem"]
        chosen = f"{GRPO} --max_completion_length {LONGEST[args.traces]} {EVALUATION}"
        grpo.main([*model, *data, "--benchmarks", test, *seed, *options("GRPO", chosen)])

    return {
        "data": lambda: write_data(args),
        "sft": fine_tune,
        **({"filter": pick_problems} if filtered else {}),
        "grpo": reinforce,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the stages that have not ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--held-out", type=int, default=0, metavar="N", help="test on the last N training problems")
    parser.add_argument(
        "--traces", choices=("equations", "words"), default="equations", help="what of a solution SFT learns"
    )
    parser.add_argument("--passes", type=int, default=PASSES, metavar="N", help="how often SFT sees each problem")
    parser.add_argument("--grpo-passes", type=int, default=1, metavar="N", help="of problems, for the filter and GRPO")
    parser.add_argument("--apart", type=int, default=0, metavar="N", help="the last N problems are for GRPO alone")
    parser.add_argument("--same-numbers", dest="new_numbers", action="store_false", help="in every pass")
    parser.add_argument("--stages", nargs="+", default=["data", "sft", "filter", "grpo"], help="only these")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    clock = args.out / "clock.txt"
    for stage, work in stages(args).items():
        if stage not in args.stages:
            continue
        lines = [line.split() for line in clock.read_text(encoding="utf-8").splitlines()]
        if any(line[0] == "end" and line[1] == stage and line[3] == "0" for line in lines):
            continue
        with timed(clock, stage):
            work()
            gc.collect()  # a trainer refers to itself, and its weights are on the GPU
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


if __name__ == "__main__":
    _mark(Path(os.environ["SPEEDRUN_CLOCK"]), f"end start {time.time():.0f} 0")
    exit_with_sentence(main)
