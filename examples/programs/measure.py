"""Programs of a model for the held-out tasks, judged by hidden tests: a JSON line for each completion.

python examples/programs/measure.py runs/programs/sft runs/programs/data/held_out.jsonl --output before.jsonl
"""

import argparse
import json
from pathlib import Path

from open_r1.engine.opening import EngineOptions, open_engine
from open_r1.engine.protocol import Request, Sampling
from open_r1.rewards import binary_code_reward


def main() -> None:
    """Writes the lines and prints the share of right programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=4, help="for each task (default: 4)")
    parser.add_argument("--max-tokens", type=int, default=320)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--code-provider", default="local", help="as code_provider of open-r1 grpo")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.tasks.read_text(encoding="utf-8").splitlines()]
    engine = open_engine(EngineOptions(str(args.model), engine=args.engine))
    sampling = Sampling(n=args.samples, max_tokens=args.max_tokens, stop_token_ids=engine.stop_token_ids, seed=0)
    prompts = [engine.render([{"role": "user", "content": row["prompt"]}]) for row in rows]
    groups = engine.engine.generate([Request(i, prompt, sampling) for i, prompt in enumerate(prompts)])
    engine.engine.close()
    answers = [(row, completion.text) for row, group in zip(rows, groups, strict=True) for completion in group]
    rewards = binary_code_reward(
        [text for _, text in answers],
        [row["verification_info"] for row, _ in answers],
        provider_type=args.code_provider,
    )
    lines = [
        json.dumps({"prompt": row["prompt"], "steps": row["steps"], "completion": text, "reward": reward}) + "\n"
        for (row, text), reward in zip(answers, rewards, strict=True)
    ]
    part = args.output.with_suffix(".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(args.output)
    print(f"{args.model}: {rewards.count(1.0) / len(rewards):.1%} of {len(rewards)} programs are right")


if __name__ == "__main__":
    main()
