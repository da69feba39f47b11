"""`open-r1 <command>`: reads the command's name and runs its module; heavy imports happen there."""

import importlib
import sys

import open_r1
from open_r1.run.console import survive_broken_pipes
from open_r1.run.entry import exit_with_sentence

COMMANDS = {
    "demo": ("open_r1.demo.run", "run the whole plan on a laptop: base, distill, R1-Zero, multi-stage, and a report"),
    "sft": ("open_r1.sft", "fine-tune a model on reasoning traces"),
    "grpo": ("open_r1.grpo", "train a model by reinforcement learning on checkable answers"),
    "generate": ("open_r1.generate", "generate and grade completions for every problem of a dataset"),
    "data": (
        "open_r1.curation.command",
        "prepare datasets: verify, pass-rate, decontaminate, dedup, mix, stats, merge, push",
    ),
    "launch": ("open_r1.launch.entry", "train on one node or several, with generators"),
    "vllm-serve": ("open_r1.launch.vllm_serve", "serve a model with vLLM for a training run"),
    "doctor": ("open_r1.launch.doctor.page", "check this machine, and whether a recipe can run on it"),
    "evaluate": ("open_r1.evaluate", "run benchmarks by DeepSeek's protocol, with intervals"),
    "compare": ("open_r1.evaluation.compare", "compare two evaluations, sample by sample"),
    "watch": ("open_r1.report.watch", "follow runs on a live page while they train"),
    "report": (
        "open_r1.evaluation.answers_page",
        "write a page for a run, or for reading the answers of an evaluation",
    ),
    "ask": ("open_r1.evaluation.ask", "ask a model one question; reasoning and answer are shown separately"),
    "chat": ("open_r1.evaluation.chat", "chat with a model in the terminal or, with --web, in the browser"),
}

USAGE = f"""usage: open-r1 <command> [options]

commands:
{chr(10).join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())}

options:
  -h, --help     this text; `open-r1 <command> --help` lists a command's options
  --version      the version

example:
  open-r1 grpo --config recipes/SmolLM2-135M-Instruct/grpo/config_demo.yaml --learning_rate 1e-6
"""


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done; 2 a mistake of the user (one sentence says which); 75 stopped after saving, to be continued
    (also by Ctrl-C in training); 130 ended at once by Ctrl-C."""
    survive_broken_pipes()
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"open-r1 {open_r1.__version__}")
        return 0
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        print(f"error: there is no command {command!r}: expected one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    return exit_with_sentence(lambda: importlib.import_module(COMMANDS[command][0]).main(rest))


if __name__ == "__main__":
    sys.exit(main())
