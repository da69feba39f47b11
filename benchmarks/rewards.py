"""Measures the grader: how fast, how often right, and which gold answers it cannot read.

    python benchmarks/rewards.py speed   [--data FOLDER] [--problems 1000]
    python benchmarks/rewards.py quality
    python benchmarks/rewards.py golds   --data FOLDER
    python benchmarks/rewards.py forms   --data FOLDER

FOLDER holds .jsonl.gz files of rows with `problem`, `solution` and `answer`; without it, `speed` makes problems up.
The reference is math-verify used as open-r1's `accuracy_reward` does: parse the gold, parse the completion, verify,
one by one in one process.
"""

import argparse
import gzip
import json
import logging
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from open_r1.rewards.fastpath import is_plain
from open_r1.rewards.grader import Grader

logging.disable(logging.WARNING)
STRICT = [
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            nits=False, malformed_operators=False, basic_latex=True, boxed="all", units=True
        ),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )
]


def serial_reward(completion: str, gold: str) -> float | None:
    """Reward of one completion with math-verify alone."""
    parsed_gold = parse(f"${gold}$", extraction_mode="first_match")
    if not parsed_gold:
        return None
    try:
        answer = parse(completion, extraction_config=STRICT, extraction_mode="first_match")
        return float(verify(parsed_gold, answer))
    except Exception:
        return None


def rows_of(file: Path) -> list[dict]:
    """Rows of a gzip JSON lines file."""
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]


def made_up(kind: str, count: int, rng: random.Random) -> list[dict]:
    """Problems with answers in the proportions of GSM8K (integers) or MATH (three in five are integers)."""
    shapes = ["%d", "%d", "%d", r"\frac{%d}{%d}", r"%d\sqrt{%d}", "x^2+%dx-%d", r"(%d,\frac{\pi}{%d})"]
    rows = []
    for _ in range(count):
        shape = "%d" if kind == "gsm8k" else rng.choice(shapes)
        values = tuple(rng.randint(2, 200) for _ in range(shape.count("%d")))
        rows.append({"answer": shape % values, "solution": "We compute step by step. " * 30})
    return rows


def completion_of(row: dict, other: dict, rng: random.Random) -> str:
    """A reasoned completion; half are right, some in another form than the gold."""
    answer = row["answer"] if rng.random() < 0.5 else other["answer"]
    forms = [answer, answer, answer.replace(r"\frac", r"\dfrac"), answer.replace(",", ", "), answer + ".0"]
    answer = rng.choice(forms if answer.isdigit() else forms[:-1])
    reasoning = (row["solution"] or row.get("problem", "")).replace("\\boxed", "") + "\n"
    return f"<think>\n{reasoning * 2}\n</think>\n<answer>\nThe answer is $\\boxed{{{answer}}}$.\n</answer>"


def speed(data: Path | None, problems: int, samples: int = 8) -> None:
    """8 completions of each problem: the reference, then ours from a cold start, then ours again."""
    rng = random.Random(0)
    sources = {"gsm8k": "gsm8k_train.jsonl.gz", "math": "math_train.jsonl.gz"}
    print("| completions | math-verify, one by one | ours, first call | ours, workers warm | faster | agree |")
    print("| --- | --: | --: | --: | --: | --: |")
    for kind, name in sources.items():
        rows = rows_of(data / name) if data else made_up(kind, problems, rng)
        if kind == "math" and data:
            rows = [row for row in rows if row["solution"]]
        rows = rng.sample(rows, min(problems, len(rows)))
        pairs = [(completion_of(row, rng.choice(rows), rng), row["answer"]) for row in rows for _ in range(samples)]
        start = time.perf_counter()
        reference = [serial_reward(completion, gold) for completion, gold in pairs]
        serial = time.perf_counter() - start
        grader = Grader()
        start = time.perf_counter()
        verdicts = grader.grade_many(completions=[c for c, _ in pairs], golds=[g for _, g in pairs])
        cold = time.perf_counter() - start
        grader._cache.clear()
        start = time.perf_counter()
        grader.grade_many(completions=[c for c, _ in pairs], golds=[g for _, g in pairs])
        warm = time.perf_counter() - start
        grader.close()
        agree = sum(float(v.correct or 0) == (r or 0.0) for v, r in zip(verdicts, reference, strict=True))
        print(
            f"| {samples} × {len(rows)} {kind} | {serial:.1f} s | {cold:.2f} s | {warm:.2f} s | "
            f"{serial / cold:.0f} to {serial / warm:.0f} × | {agree / len(pairs):.1%} |"
        )


def quality() -> None:
    """The labeled pairs of tests/rewards, by category: by kind (`kind_pairs.py`), the first ones and the adversarial
    ones (`answer_pairs.py`), and whole completions."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "rewards"))
    import kind_pairs
    from answer_pairs import ADVERSARIAL, COMPLETIONS, PAIRS

    kinds = [(kind, *pair) for kind, pairs in kind_pairs.PAIRS.items() for pair in pairs]
    for pairs in (kinds, PAIRS, ADVERSARIAL):
        _quality_table([(category, gold, f"$\\boxed{{{answer}}}$", right) for category, gold, answer, right in pairs])
    completions = [*COMPLETIONS, *kind_pairs.COMPLETIONS]
    _quality_table([("completions", gold, completion, right) for completion, gold, right in completions])


def _quality_table(rows: list[tuple[str, str, str, bool]]) -> None:
    """Rows are category, gold, completion, right or not."""
    grader = Grader(seconds=30)
    verdicts = grader.grade_many(completions=[row[2] for row in rows], golds=[row[1] for row in rows])
    grader.close()
    table: dict[str, list[int]] = defaultdict(lambda: [0] * 6)
    for (category, gold, completion, right), verdict in zip(rows, verdicts, strict=True):
        alone = verify(parse(f"${gold}$"), parse(completion))
        for name in (category, "all"):
            counts = table[name]
            counts[0] += 1
            counts[1] += verdict.correct is right
            counts[2] += alone is right
            counts[3] += alone and not right
            counts[4] += right and not alone
            counts[5] += verdict.correct is True and not right
    print(
        "| pairs | number | ours correct | ours, wrongly accepted | math-verify correct | wrongly accepted | wrongly "
        "rejected |"
    )
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for name, (number, ours, alone, too_kind, too_hard, ours_kind) in sorted(
        table.items(), key=lambda item: item[0] == "all"
    ):
        print(f"| {name} | {number} | {ours} | {ours_kind} | {alone} | {too_kind} | {too_hard} |")


def golds(data: Path) -> None:
    """For each file: golds that cannot be read, golds that differ from themselves, solutions not graded right."""
    print("| file | rows | unreadable golds | gold against itself | solution against gold |")
    print("| --- | --: | --: | --: | --: |")
    grader = Grader(seconds=30)
    notes = []
    for file in sorted(data.glob("*.jsonl.gz")):
        rows = rows_of(file)
        unreadable = [row["answer"] for row in rows if grader.check_gold(row["answer"])]
        same = grader.grade_many(
            completions=[f"\\boxed{{{row['answer']}}}" for row in rows], golds=[row["answer"] for row in rows]
        )
        worked = [row for row in rows if row["solution"]]
        solved = grader.grade_many(
            completions=[row["solution"] for row in worked], golds=[row["answer"] for row in worked]
        )
        name = file.name.removesuffix(".jsonl.gz")
        right = sum(verdict.correct is True for verdict in solved)
        print(
            f"| {name} | {len(rows)} | {len(unreadable)} | {sum(v.correct is True for v in same)} of {len(rows)} | "
            f"{right} of {len(worked)} |"
        )
        notes += [f"{name}: cannot read {gold!r}" for gold in unreadable]
        notes += [
            f"{name}: gold {row['answer']!r}, extracted {verdict.extracted!r}: {verdict.correct}"
            for row, verdict in zip(worked, solved, strict=True)
            if verdict.correct is not True
        ]
    print("\n".join(notes))


def forms(data: Path) -> None:
    """Every gold of MATH that is not a plain number or word, in other layouts (all right), and against the next two
    golds in alphabetical order (look-alikes, compared with what math-verify says)."""
    answers = {row["answer"] for name in ("math_train", "math_500") for row in rows_of(data / f"{name}.jsonl.gz")}
    golds = sorted(answer for answer in answers if not is_plain(answer))
    grader = Grader(seconds=30)
    pairs = [
        (gold, form)
        for gold in golds
        for form in {
            gold.replace(r"\frac", r"\dfrac"),
            gold.replace(r"\left", "").replace(r"\right", ""),
            gold.replace(" ,", ",").replace(", ", ","),
            f"${gold}$",
            f"{gold}.",
            rf"\displaystyle {gold}",
        }
        - {gold}
    ]
    verdicts = grader.grade_many(completions=[f"\\boxed{{{form}}}" for _, form in pairs], golds=[g for g, _ in pairs])
    print(f"other layouts: {sum(v.correct is True for v in verdicts)} of {len(pairs)} right")
    print("\n".join(str(pair) for pair, v in zip(pairs, verdicts, strict=True) if v.correct is not True))
    pairs = [(golds[i], other) for i in range(len(golds)) for other in golds[i + 1 : i + 3]]
    verdicts = grader.grade_many(completions=[f"\\boxed{{{other}}}" for _, other in pairs], golds=[g for g, _ in pairs])
    differing = [
        (gold, other, verdict.correct)
        for (gold, other), verdict in zip(pairs, verdicts, strict=True)
        if verify(parse(f"${gold}$"), parse(f"${other}$")) is not verdict.correct
    ]
    print(f"look-alikes: {len(pairs) - len(differing)} of {len(pairs)} as math-verify says; the others:")
    print("\n".join(map(str, differing)))


def main() -> None:
    """Runs one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "quality", "golds", "forms"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--problems", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.what == "speed":
        speed(arguments.data, arguments.problems)
    elif arguments.what == "quality":
        quality()
    elif arguments.data is None:
        parser.error(f"{arguments.what} needs --data FOLDER")
    else:
        {"golds": golds, "forms": forms}[arguments.what](arguments.data)


if __name__ == "__main__":
    main()
