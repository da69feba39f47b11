"""Recall and false positives of `open-r1 data decontaminate` on real problem sets.

    python benchmarks/decontamination.py --data FOLDER

FOLDER holds gsm8k_train, gsm8k_test, math_train, math_500, simplerl_8k, aime24, amc23 and limo_traces_r1distill32b as
.jsonl.gz with `problem` and `answer`. Measured are

- sets with known overlaps: rows whose text without white space is the same must be found;
- sets that others have cleaned of each other: what is found there is a false positive, or something they missed;
- planted problems: each benchmark problem written in another way must be found among the training rows.

"One shared n-gram" is the usual rule, for comparison.
"""

import argparse
import gzip
import json
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from open_r1.curation.overlap import KnownProblems, Shape, shape_of

N = 8
NAMES = ("Amir", "Beatriz", "Chen", "Dalia", "Emeka", "Freya", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena")
_SENTENCE_STARTS = {
    *("A", "An", "The", "In", "If", "He", "She", "It", "They", "At", "On", "For", "How", "What", "When", "His", "Her"),
    *(
        "After",
        "Each",
        "Every",
        "There",
        "Then",
        "This",
        "One",
        "Two",
        "Three",
        "Four",
        "Five",
        "Six",
        "To",
        "Of",
        "By",
    ),
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "January", "February", "March"),
    *("April", "May", "June", "July", "August", "September", "October", "November", "December", "However", "Find"),
    *("Let", "Suppose", "Given", "Compute", "Determine", "Express", "Your", "Some", "All", "From", "And", "But", "So"),
}


def spacing(text: str, rng: random.Random) -> str:
    """White space of other kinds and lengths."""
    return re.sub(r"\s+", lambda m: rng.choice(["  ", "\n", "\t", " \n "]), text)


def latex(text: str, rng: random.Random) -> str:
    """LaTeX as another author would write it."""
    text = text.replace("\\frac", "\\dfrac").replace("\\leq", "\\le").replace("\\cdot", "\\times")
    text = re.sub(r"(?<=[0-9a-z)}])([+=<>])(?=[0-9a-z(\\])", r" \1 ", text)
    text = re.sub(r"\$([^$]+)\$", lambda m: f"\\( {m[1]} \\)" if rng.random() < 0.5 else f"$ {m[1]}\\, $", text)
    return text.replace("\\left", "").replace("\\right", "")


def names(text: str, rng: random.Random) -> str:
    """Every name for another; unchanged if none is found."""
    found = set(re.findall(r"(?<![\\$A-Za-z])[A-Z][a-z]{2,}\b", text)) - _SENTENCE_STARTS
    for name, other in zip(sorted(found), rng.sample(NAMES, len(NAMES)), strict=False):
        text = re.sub(rf"\b{name}\b", other, text)
    return text


def wrapped(text: str, rng: random.Random) -> str:
    """The problem inside an instruction."""
    return f"Solve the following problem step by step.\n\n{text}\n\nPut your final answer within \\boxed{{}}."


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "white space": spacing,
    "LaTeX": latex,
    "names": names,
    "inside an instruction": wrapped,
}


def main() -> None:
    """Prints three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    sets: dict[str, list[dict]] = {}
    shapes: dict[str, list[Shape]] = {}

    def read(name: str) -> list[dict]:
        if name not in sets:
            with gzip.open(args.data / f"{name}.jsonl.gz", "rt") as lines:
                sets[name] = [json.loads(line) for line in lines]
            shapes[name] = [shape_of(row["problem"], N) for row in sets[name]]
        return sets[name]

    def known(name: str) -> KnownProblems:
        read(name)
        problems = KnownProblems(N)
        for i, shape in enumerate(shapes[name]):
            problems.add(i, shape)
        return problems

    print("known overlaps: same text | found | further rows found, of them with the same answer")
    for train, other in (("limo_traces_r1distill32b", "math_train"), ("simplerl_8k", "math_train")):
        rows, others, problems = read(train), read(other), known(other)
        keys = {strict(row["problem"]) for row in others}
        same = {i for i, row in enumerate(rows) if strict(row["problem"]) in keys}
        found = {i: match for i, shape in enumerate(shapes[train]) if (match := problems.find(shape))}
        further = [i for i in found if i not in same]
        agreeing = sum(rows[i]["answer"] == others[found[i].key]["answer"] for i in further)  # type: ignore[index]
        print(f"{train} in {other}: {len(same)} | {len(same & set(found))} | {len(further)}, {agreeing}", flush=True)

    print("cleaned sets: rows | found, of them with the same answer | with one shared n-gram")
    for train, other in (
        ("gsm8k_train", "gsm8k_test"),
        ("math_train", "math_500"),
        ("simplerl_8k", "math_500"),
        ("math_train", "aime24"),
        ("math_train", "amc23"),
        ("simplerl_8k", "aime24"),
        ("simplerl_8k", "amc23"),
        ("limo_traces_r1distill32b", "math_500"),
    ):
        rows, others, problems = read(train), read(other), known(other)
        found = {i: match for i, shape in enumerate(shapes[train]) if (match := problems.find(shape))}
        agreeing = sum(rows[i]["answer"] == others[m.key]["answer"] for i, m in found.items())  # type: ignore[index]
        ngrams = frozenset().union(*(shape.ngrams for shape in shapes[other]))
        usual = sum(bool(shape.ngrams & ngrams) for shape in shapes[train])
        print(f"{train} in {other}: {len(rows)} | {len(found)}, {agreeing} | {usual}", flush=True)

    print("planted: changed | found, right problem | with one shared n-gram")
    for name in ("gsm8k_test", "math_500", "aime24", "amc23"):
        rows, problems = read(name), known(name)
        ngrams = frozenset().union(*(shape.ngrams for shape in shapes[name]))
        for change, write in CHANGES.items():
            rng = random.Random(0)
            planted = {i: write(row["problem"], rng) for i, row in enumerate(rows)}
            planted = {i: text for i, text in planted.items() if text != rows[i]["problem"]}
            found = {i: m for i, text in planted.items() if (m := problems.find(shape_of(text, N)))}
            hit = sum(match.key == i for i, match in found.items())
            usual = sum(bool(shape_of(text, N).ngrams & ngrams) for text in planted.values())
            if planted:
                print(f"{name}, {change}: {len(planted)} | {len(found)}, {hit} | {usual}", flush=True)


def strict(text: str) -> str:
    """The text without white space, in lower case."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).lower())


if __name__ == "__main__":
    main()
