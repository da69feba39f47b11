"""A demo folder as `open-r1 demo` leaves it, with invented figures."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from open_r1.report.recorder import RunRecorder

ACCURACY = {"base": 0.38, "distil": 0.61, "zero": 0.91, "multi_stage": 0.93}
THINKS = {"base": 0.4, "distil": 0.7, "zero": 0.97, "multi_stage": 0.98}


def write_fake_demo(folder: Path, problems: int = 24, steps: int = 8) -> Path:
    """Fills `folder`; every model answers every problem, and its training logged `steps` steps."""
    rng = random.Random(0)
    asked = [[rng.randint(1, 19) for _ in range(rng.randint(4, 6))] for _ in range(problems)]
    stages = []
    for name, accuracy in ACCURACY.items():
        rows = [_sample(terms, rng, THINKS[name], accuracy / THINKS[name]) for terms in asked]
        samples = folder / name / "evaluation/sums/samples.parquet"
        samples.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), samples)
        share = sum(row["correct"] for row in rows) / problems
        stages.append(
            {
                "name": name,
                "accuracy": share,
                "ci95": [max(0, share - 0.04), min(1, share + 0.04)],
                "n": problems,
                "mean_tokens": sum(row["n_tokens"] for row in rows) / problems,
                "seconds": 48.2,
            }
        )
    (folder / "results.json").write_text(json.dumps({"stages": stages, "seconds": 284.0}))
    _log(folder / "distil", [{"loss": 1.2 * 0.9**step} for step in range(steps)])
    for name, start in (("zero", 0.38), ("multi_stage", 0.6)):
        rises = [start + (0.92 - start) * (1 - 0.85**step) + rng.gauss(0, 0.015) for step in range(steps)]
        _log(folder / name, [_grpo_logs(share) for share in rises])
    return folder


def _sample(terms: list[int], rng: random.Random, thinks: float, right: float) -> dict:
    total, lines = terms[0], []
    for term in terms[1:]:
        lines.append(f"{total}+{term}={total + term}")
        total += term
    thought, answer = "", total + rng.choice([-3, 1, 7])
    if rng.random() < thinks:
        thought, answer = "\n".join(lines), total if rng.random() < right else total - 1
    text = f"<think>\n{thought}\n</think>\n<answer>\n{answer}\n</answer>"
    cut = rng.random() < 0.03
    return {
        "problem": f"What is {'+'.join(map(str, terms))}?",
        "gold": str(total),
        "completion": text[:20] if cut else text,
        "n_tokens": len(text),
        "finish_reason": "length" if cut else "stop",
        "correct": answer == total and not cut,
    }


def _grpo_logs(share: float) -> dict:
    return {
        "reward": share * 2,
        "rewards/accuracy/mean": share,
        "completions/mean_length": 20 + 50 * share,
        "loss": 0.01,
    }


def _log(stage: Path, lines: list[dict]) -> None:
    recorder = RunRecorder(stage, {}, is_main=True)
    recorder.start(0)
    for step, line in enumerate(lines, start=1):
        recorder.log_metrics(step, line)
