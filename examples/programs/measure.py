"""pass@1 of a model on the held-out tasks, with its interval, and the cheats among its programs.

    python examples/programs/measure.py runs/programs/sft runs/programs/data/held_out.jsonl --samples 4

Cheats are programs that print what the question shows without reading the input, or catch every exception.
"""

import argparse
import json
import math
import re
import statistics
from pathlib import Path

from open_r1.engine.opening import EngineOptions, open_engine
from open_r1.engine.protocol import Request, Sampling
from open_r1.rewards import binary_code_reward
from open_r1.rewards.code.programs import extract_code


def cheat(source: str, prompt: str) -> str | None:
    """The kind of a cheat, by what the program says; None if it says nothing of the sort."""
    shown = prompt.rpartition("Example output:\n")[2].strip()
    if source and "input" not in source and "stdin" not in source:
        return "prints the example" if shown and shown in source else "does not read its input"
    return "hides its errors" if re.search(r"except\s*(Exception)?\s*:", source) else None


def main() -> None:
    """Prints one line, and writes every completion to `programs.jsonl` in the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--max-tokens", type=int, default=320)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.tasks.read_text(encoding="utf-8").splitlines()][: args.limit]
    engine = open_engine(EngineOptions(str(args.model), engine=args.engine))
    sampling = Sampling(n=args.samples, max_tokens=args.max_tokens, stop_token_ids=engine.stop_token_ids, seed=0)
    prompts = [engine.render([{"role": "user", "content": row["prompt"]}]) for row in rows]
    requests = [Request(i, prompt, sampling) for i, prompt in enumerate(prompts)]
    groups = engine.engine.generate(requests)
    engine.engine.close()
    answers = [(row, completion.text) for row, group in zip(rows, groups, strict=True) for completion in group]
    rewards = binary_code_reward([text for _, text in answers], [row["verification_info"] for row, _ in answers])
    shares = [
        statistics.fmean(r or 0.0 for r in rewards[i : i + args.samples]) for i in range(0, len(rewards), args.samples)
    ]
    error = 1.96 * statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else float("nan")
    found = [cheat(extract_code(text), row["prompt"]) for row, text in answers]
    kinds = {kind: found.count(kind) for kind in sorted({kind for kind in found if kind})}
    score = f"pass@1 {statistics.fmean(shares):.1%} ± {error:.1%}"
    print(f"{args.model}: {score}, {len(shares)} tasks; cheats: {kinds or 'none'}")
    lines = [
        json.dumps({"prompt": row["prompt"], "completion": text, "reward": reward, "cheat": kind}) + "\n"
        for (row, text), reward, kind in zip(answers, rewards, found, strict=True)
    ]
    (args.output or args.model / "programs.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
