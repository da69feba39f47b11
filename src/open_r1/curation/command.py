"""`open-r1 data`: tools for datasets between generating and training.

    open-r1 data verify data/traces --output data/verified
    open-r1 data decontaminate data/verified --against math_500.jsonl aime24.jsonl --output data/clean
    open-r1 data <tool> --help

{tools}

Every tool reports what it drops and why, writes a folder that `datasets.load_dataset` and the recipes read, with a
card that says how it was made, and has --dry-run.
"""

import importlib
import sys

from open_r1.errors import UserError

TOOLS = {
    "verify": "keep completions whose answer is right, as conversations to fine-tune on",
    "pass-rate": "how often a model solves each problem; keep a band for reinforcement learning",
    "decontaminate": "drop problems that are in a benchmark",
    "dedup": "drop problems that are there already",
    "mix": "one dataset from several, by the declaration that recipes use",
    "stats": "lengths by a tokenizer, with a histogram",
    "merge": "one dataset from the parts of a job array",
    "push": "a dataset folder to the hub",
}


def main(argv: list[str] | None = None) -> None:
    """Runs a tool. Raises UserError for what the user can mend."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").format(tools="\n".join(f"{name:<14} {text}" for name, text in TOOLS.items())))
        sys.exit(0 if argv else 2)
    if argv[0] not in TOOLS:
        raise UserError(f"data has no tool {argv[0]!r}; there are {', '.join(TOOLS)}.")
    importlib.import_module(f"open_r1.curation.{argv[0].replace('-', '_')}").main(argv[1:])
