"""`open-r1 <command>`: parses the command's name and hands over; heavy imports happen inside the command."""

import importlib
import sys

import open_r1
from open_r1.run.console import survive_broken_pipes
from open_r1.run.entry import exit_with_sentence

COMMANDS = {
    "demo": ("open_r1.demo.run", "the whole plan on a laptop: base, distil, R1-Zero, multi-stage, and a report"),
    "sft": ("open_r1.sft", "fine-tune a model on reasoning traces"),
    "grpo": ("open_r1.grpo", "train a model by reinforcement learning on checkable answers"),
    "generate": ("open_r1.generate", "completions for every problem of a dataset, graded, in shards"),
    "data": ("open_r1.curation.command", "verify, pass-rate, decontaminate, dedup, mix, stats, merge, push"),
    "launch": ("open_r1.launch.entry", "train on one node or many, generators included"),
    "vllm-serve": ("open_r1.launch.vllm_serve", "a vLLM server that a run writes with and sends weights to"),
    "doctor": ("open_r1.launch.doctor.page", "what this machine has, and whether a recipe can run on it"),
    "evaluate": ("open_r1.evaluate", "benchmarks by DeepSeek's protocol, with intervals"),
    "compare": ("open_r1.evaluation.compare", "the difference between two evaluations, and where they differ"),
    "watch": ("open_r1.report.watch", "a page that follows runs while they train"),
    "report": ("open_r1.evaluation.answers_page", "a page of a run, or to read the answers of an evaluation"),
    "ask": ("open_r1.evaluation.ask", "one question, the answer as it is written, the reasoning apart"),
    "chat": ("open_r1.evaluation.chat", "several turns, in the terminal or, with --web, in the browser"),
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
    """Exit status: 0 done, 2 something to mend (said in one sentence), 75 stopped to be continued (by Ctrl-C too,
    in training), 130 ended by Ctrl-C at once."""
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
        print(f"error: there is no command {command!r}; there are {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    return exit_with_sentence(lambda: importlib.import_module(COMMANDS[command][0]).main(rest))


if __name__ == "__main__":
    sys.exit(main())
