"""New numbers for a word problem with a worked solution: the same story with other quantities and another answer.

A small model that sees each problem several times learns the answers by heart. If the numbers change each time, it has
to learn the steps. Large models write such variants for MuggleMath (arXiv 2310.05506); here, arithmetic is enough,
because a problem is varied only if every number of its solution is understood: the number is in the problem, is the
result of an earlier equation, or is explained by a word (`twice`: 2, `week`: 7). All equations are computed again.
"""

import functools
import random
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from multiprocessing import get_context
from types import CodeType

NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(rf"({NUMBER})|([-−–+*/()×÷]|(?<![A-Za-z])[xX](?![A-Za-z]))")
_OPERATORS = str.maketrans({"x": "*", "X": "*", "×": "*", "÷": "/", "−": "-", "–": "-"})
_RESULT = re.compile(rf"[\s$]*({NUMBER})(?!\s*[-−–+*/×÷]\s*[\d$(])")
_UNIT = re.compile(r"(?<=\w)-(?=[A-Za-z])|(?<=[A-Za-z])\s?/\s?(?=[A-Za-z])|(?<=\d)/(?=[A-Za-z])")
"""Signs that are no operators: time-outs, 30-minute, students/class."""
_ORDINAL = re.compile(r"\s*(?:st|nd|rd|th)\b")
ATTEMPTS = 60
"""Draws of new numbers before a problem is given up."""
WORDS: dict[int, str] = {
    1: "one a an single",
    2: "two half halves twice double doubles doubled pair pairs couple both second",
    3: "three third thirds triple triples tripled thrice triplets",
    4: "four fourth fourths quarter quarters quadruple season seasons",
    5: "five fifth fifths nickel nickels weekday weekdays",
    6: "six sixth",
    7: "seven seventh week weeks weekly",
    8: "eight eighth",
    9: "nine ninth",
    10: "ten tenth dime dimes decade decades",
    11: "eleven",
    12: "twelve dozen dozens year years month months monthly yearly foot feet",
    15: "fifteen",
    20: "twenty",
    24: "day days hour hours daily",
    25: "quarter quarters",
    30: "thirty month months",
    50: "fifty",
    52: "week weeks year years weekly",
    60: "sixty minute minutes hour hours second seconds",
    100: "hundred percent percentage cent cents dollar dollars meter meters",
    365: "day days year years",
    1000: "thousand kilogram kilograms kg kilometer kilometers km liter liters",
}
"""Numbers that a solution may use although the problem does not write them, and the words that stand for them."""


@dataclass(frozen=True)
class Equation:
    """`text` is `48/2=24`. `expression` is its left side as Python over the list `v` of its `literals`, `v[0]/v[1]`; it
    has only operators, parentheses and `v`."""

    text: str
    expression: str
    literals: tuple[Fraction, ...]
    result: Fraction

    def value(self, literals: Sequence[Fraction]) -> Fraction | None:
        """What the expression gives with these literals. None: it divides by zero, or is no expression."""
        try:
            return eval(_code(self.expression), {"__builtins__": {}}, {"v": literals})
        except (SyntaxError, TypeError, ZeroDivisionError):
            return None


@functools.cache
def _code(expression: str) -> CodeType:
    return compile(expression, "equation", "eval")


def equations(solution: str) -> list[Equation | None]:
    """The equations of a worked solution, in order: one for each equals sign, None if it is not understood."""
    return [
        _equation(left, right)
        for sides in (line.split("=") for line in solution.splitlines())
        for left, right in pairwise(sides)
    ]


def _equation(left: str, right: str) -> Equation | None:
    """The longest expression at the end of `left` that gives the number at the beginning of `right`, exactly. Words
    (units) are left out."""
    written = _RESULT.match(right)
    if written is None:
        return None
    result = number(written[1])
    tokens = _TOKEN.findall(_UNIT.sub(" ", left))
    for start in range(len(tokens)):
        literals = [number(digits) for digits, _ in tokens[start:] if digits]
        if len(literals) < 2:
            return None
        count = iter(range(len(literals)))
        parts = [f" v[{next(count)}] " if digits else sign.translate(_OPERATORS) for digits, sign in tokens[start:]]
        text = "".join(digits or sign.translate(_OPERATORS) for digits, sign in tokens[start:])
        equation = Equation(f"{text}={written[1]}", "".join(parts).strip(), tuple(literals), result)
        if equation.value(literals) == result:
            return equation
    return None


@dataclass(frozen=True)
class Template:
    """A problem of which every number is understood. `fixed` ones stay, `free` ones may change."""

    problem: str
    solution: str
    steps: tuple[Equation, ...]
    fixed: frozenset[Fraction]
    free: frozenset[Fraction]

    @staticmethod
    def read(problem: str, solution: str) -> "Template | None":
        """None if a number is not understood, or none may change. `solution` ends with `#### ANSWER`."""
        worked, _, answer = solution.rpartition("####")
        found = equations(worked)
        steps = [step for step in found if step is not None]
        if len(steps) < max(1, len(found)) or not _is(answer, steps[-1].result):
            return None
        fixed, free = _quantities(problem, solution, steps)
        known = {value: value for value in fixed | free}
        if not free or not _compute(steps, known):
            return None
        if not {number(text) for text in re.findall(NUMBER, solution)} <= known.keys():
            return None
        return Template(problem, solution, tuple(steps), frozenset(fixed), frozenset(free))

    def draw(self, seed: str) -> tuple[str, str] | None:
        """Problem and solution with other numbers: positive, whole where they were whole, and those of the problem in
        the same order. None if no draw gives such numbers."""
        draw = random.Random(seed)
        for _ in range(ATTEMPTS):
            chosen = _other_numbers(sorted(self.free), draw)
            if chosen is None:
                continue
            names = {value: value for value in self.fixed} | chosen
            if _compute(self.steps, names):
                return _with_numbers(self.problem, chosen), _with_numbers(self.solution, names)
        return None


def passes(pairs: Sequence[tuple[str, str]], number_of_passes: int, seed: int) -> list[list[tuple[str, str]]]:
    """The problems and solutions `number_of_passes` times: as they are, then with new numbers wherever that is
    possible."""
    jobs = [(*pair, f"{seed} {i}", number_of_passes - 1) for i, pair in enumerate(pairs)]
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        found = list(pool.map(_variants, jobs, chunksize=64))
    return [[variants[k] for variants in found] for k in range(number_of_passes)]


def _variants(job: tuple[str, str, str, int]) -> list[tuple[str, str]]:
    problem, solution, seed, count = job
    template = Template.read(problem, solution) if count else None
    drawn = [template.draw(f"{seed} {k}") if template else None for k in range(count)]
    return [(problem, solution), *(pair or (problem, solution) for pair in drawn)]


def only_equations(solution: str) -> str | None:
    """One line for each equation, such as `48/2=24`, and the line with the answer. None unless the last one gives
    it."""
    worked, _, answer = solution.rpartition("####")
    steps = [step for step in equations(worked) if step is not None]
    if not steps or not _is(answer, steps[-1].result):
        return None
    return "".join(f"{step.text}\n" for step in steps) + f"#### {answer.strip()}"


def _is(text: str, value: Fraction) -> bool:
    text = text.strip()
    return re.fullmatch(NUMBER, text) is not None and number(text) == value


def number(text: str) -> Fraction:
    """The value of a number as people write it, such as 1,200 or .5."""
    return Fraction(text.replace(",", ""))


def _quantities(problem: str, solution: str, steps: Sequence[Equation]) -> tuple[set[Fraction], set[Fraction]]:
    """The numbers that must stay (and constants), and those that may change: whole numbers of the problem that the
    equations use, and that nothing else stands for."""
    words = set(re.findall(r"[a-z]+", f"{problem} {solution}".lower()))
    fixed = {Fraction(value) for value, names in WORDS.items() if not words.isdisjoint(names.split())}
    used = {literal for step in steps for literal in step.literals}
    free = set()
    for found in re.finditer(NUMBER, problem):
        value, before, after = number(found[0]), problem[: found.start()][-1:], problem[found.end() :]
        if after.lstrip().startswith("%") or after.lstrip().startswith("percent"):
            share = value / 100
            fixed |= {value, share, 100 - value, 1 - share, 1 + share, Fraction(100)}
        elif fraction := re.match(r"/(\d+)", after):
            share = value / max(int(fraction[1]), 1)
            fixed |= {value, share, 1 - share, 1 + share}
        elif before in ("/", ":", ".") or after[:1] == ":" or _ORDINAL.match(after) or before.isalpha():
            fixed.add(value)
        elif value.denominator == 1 and 2 <= value < 1900 and value in used:
            free.add(value)
        else:
            fixed.add(value)
    return fixed, free - fixed


def _other_numbers(old: Sequence[Fraction], draw: random.Random) -> dict[Fraction, Fraction] | None:
    """Numbers of about the same size, in the same order; a round number stays round, and some numbers stay as they
    are. None if this draw changes the order or nothing."""
    new: list[Fraction] = []
    for value in map(int, old):
        unit = next(step for step in (100, 10, 5, 1) if value % step == 0 and (step == 1 or value > step))
        low, high = max(2, value // 2) // unit, 2 * value // unit
        new.append(Fraction(value if draw.random() < 0.25 else unit * draw.randint(max(low, 1), high)))
    in_order = new == sorted(set(new)) and new[0] > 1
    return dict(zip(old, new, strict=True)) if in_order and new != list(old) else None


def _compute(steps: Sequence[Equation], names: dict[Fraction, Fraction]) -> bool:
    """Adds the new value of every result to `names`, from old to new. False if a number is not known or not possible,
    or if an old number would get two new ones."""
    for step in steps:
        if not names.keys() >= set(step.literals):
            return False
        value = step.value([names[literal] for literal in step.literals])
        if value is None or not _possible(value, step.result) or names.get(step.result, value) != value:
            return False
        names[step.result] = value
    return True


def _possible(new: Fraction, old: Fraction) -> bool:
    return new > 0 and (new.denominator == 1 or (old.denominator != 1 and (new * 100).denominator == 1))


def _with_numbers(text: str, names: Mapping[Fraction, Fraction]) -> str:
    def write(match: re.Match[str]) -> str:
        old = number(match[0])
        new = names.get(old, old)
        if new == old:
            return match[0]
        if new.denominator == 1:
            return f"{int(new):,}" if "," in match[0] else str(int(new))
        digits = max(len(match[0].partition(".")[2]), 1 if (new * 10).denominator == 1 else 2)
        return f"{float(new):.{digits}f}"

    return re.sub(NUMBER, write, text)
