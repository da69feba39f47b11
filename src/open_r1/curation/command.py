"""`open-r1 data`: tools that prepare datasets for training.

    open-r1 data verify data/traces --output data/verified
    open-r1 data decontaminate data/verified --against math_500.jsonl aime24.jsonl --output data/clean
    open-r1 data <tool> --help

{tools}

Every tool reports what it drops and why. It writes a folder that `datasets.load_dataset` and the recipes can read,
with a card that says how it was made. All tools have --dry-run.
"""

import importlib
import sys

from open_r1.errors import UserError

TOOLS = {
    "verify": "keep completions with right answers, as conversations for fine-tuning",
    "pass-rate": "measure how often a model solves each problem; keep those in a range for GRPO",
    "decontaminate": "drop problems that occur in benchmarks",
    "dedup": "drop duplicate problems",
    "mix": "mix several datasets, as `dataset_mixture` in recipes does",
    "stats": "lengths in tokens, with a histogram",
    "merge": "merge the parts that a job array generated",
    "push": "upload a dataset folder to the hub",
}


def main(argv: list[str] | None = None) -> None:
    """Runs a tool. Raises UserError."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").format(tools="\n".join(f"{name:<14} {text}" for name, text in TOOLS.items())))
        sys.exit(0 if argv else 2)
    if argv[0] not in TOOLS:
        raise UserError(f"data has no tool {argv[0]!r}: expected one of {', '.join(TOOLS)}.")
    importlib.import_module(f"open_r1.curation.{argv[0].replace('-', '_')}").main(argv[1:])
