"""Which problems count as the same: planted changes that must be found, and neighbours that must not."""

import json

import pytest

from open_r1.curation.normal_form import tokens_of
from open_r1.curation.overlap import KnownProblems, shape_of
from open_r1.errors import UserError

FRACTION = (
    "Find the sum of all positive integers $n$ such that $\\frac{n+18}{n}$ is an integer, with $n \\leq 1{,}000$."
)
SALE = (
    "Natalia sold clips to 48 of her friends in April, and then Natalia sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)


def find(known, text, n=8):
    problems = KnownProblems(n)
    for key, problem in known.items():
        problems.add(key, shape_of(problem, n))
    return problems.find(shape_of(text, n))


@pytest.mark.parametrize(
    "written",
    [
        FRACTION.upper().replace("\\FRAC", "\\frac").replace("\\LEQ", "\\leq"),
        FRACTION.replace(" ", "  \n"),
        FRACTION.replace("\\frac", "\\dfrac").replace("{n+18}{n}", "{ n + 18 } { n }"),
        FRACTION.replace("$", ""),
        FRACTION.replace("\\frac{n+18}{n}", "\\left.\\tfrac{n\\,+\\,18}{n}\\right."),
        FRACTION.replace("\\leq 1{,}000", "\\le 1000"),
        FRACTION.replace("$", "\\(", 1).replace("$", "\\)", 1),
    ],
)
def test_spelling_makes_no_difference(written):
    assert find({"a": FRACTION}, written).kind == "same"


def test_a_problem_in_a_longer_text_is_found():
    match = find({"a": SALE}, f"Solve this step by step. {SALE} Put the answer in a box.")
    assert (match.key, match.kind) == ("a", "n-grams")
    assert match.score == 1.0


def test_a_problem_as_long_as_an_n_gram_has_one():
    words = "one two three four five six seven eight"
    assert [len(shape_of(words, n).ngrams) for n in (7, 8, 9)] == [2, 1, 0]
    assert find({"a": words}, f"Say: {words}").kind == "n-grams"


def test_swapped_names_are_found():
    match = find({"a": SALE, "b": FRACTION}, SALE.replace("Natalia", "Bob").replace("of her", "of his"))
    assert (match.key, match.kind) == ("a", "near copy")


def test_other_numbers_are_another_problem():
    assert find({"a": SALE}, SALE.replace("48", "50").replace("Natalia", "Bob")) is None


def test_short_problems_are_found_only_as_a_whole():
    known = {"a": "What is $2+2$?"}
    assert find(known, "what is 2 + 2").kind == "same"
    assert find(known, "What is $2+2$ if the sum is taken in the ring of integers modulo three?") is None
    assert find(known, "What is $2+3$?") is None
    assert find({"a": SALE}, "How many clips did Natalia sell altogether?") is None


def test_the_best_match_is_told():
    close = SALE.replace("altogether", "in all")
    assert find({"far": close + " Explain each step of the way, please.", "same": SALE}, SALE).key == "same"


def test_operators_and_digits_count():
    assert tokens_of("$x-1$") != tokens_of("$x+1$")
    assert tokens_of("1,234.5") == ["1234.5"]
    assert tokens_of("") == []


@pytest.fixture
def benchmark(jsonl):
    return jsonl([{"problem": FRACTION}, {"problem": SALE}, {"problem": "2 + 2 = ?"}], "bench.jsonl")


def test_decontaminate_drops_and_tells_the_pairs(data, jsonl, benchmark, tmp_path):
    clean = "How many primes are there below one hundred that end in the digit seven?"
    problems = [clean, SALE.replace("Natalia", "Kim"), "2+2=?", FRACTION.replace(" ", "  ")]
    rows = [{"question": p, "answer": str(i)} for i, p in enumerate(problems)]
    kept, report = data("decontaminate", jsonl(rows), "--against", benchmark)
    assert kept["question"] == [clean]
    assert report["dropped"] == {"same, bench.jsonl": 2, "near copy, bench.jsonl": 1}
    pairs = [json.loads(line) for line in (tmp_path / "out" / "run" / "pairs.jsonl").read_text().splitlines()]
    assert [(p["row"], p["benchmark_row"]) for p in pairs] == [(1, 1), (2, 2), (3, 0)]
    assert pairs[0]["benchmark_problem"] == SALE


def test_a_benchmark_is_a_file_with_any_name(data, jsonl):
    path = jsonl([{"problem": SALE}], "bench@v2.jsonl")
    _, report = data("decontaminate", jsonl([{"problem": SALE}, {"problem": FRACTION}]), "--against", path)
    assert report["dropped"] == {"same, bench@v2.jsonl": 1}


def test_pairs_with_half_a_surrogate_are_written(data, jsonl, tmp_path):
    asked = json.dumps([{"role": "user", "content": SALE + " \ud83d"}])
    rows, known = jsonl([{"problem": asked}, {"problem": FRACTION}]), jsonl([{"problem": SALE}], "known.jsonl")
    data("decontaminate", rows, "--against", known)
    assert SALE in (tmp_path / "out" / "run" / "pairs.jsonl").read_text()


def test_a_dry_run_shows_the_pairs(data, jsonl, benchmark, capsys):
    assert data("decontaminate", jsonl([{"problem": SALE}]), "--against", benchmark, "--dry-run") == (None, None)
    assert "row 1 = bench.jsonl row 2, same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--overlap", "0"], "overlap is 0"),
        (["--near", "1"], "near is 1"),
        (["--against-column", "q"], "no column 'q'"),
    ],
)
def test_bad_bounds_are_one_sentence(data, jsonl, benchmark, options, expected):
    with pytest.raises(UserError, match=expected):
        data("decontaminate", jsonl([{"problem": SALE}]), "--against", benchmark, *options)


def test_a_benchmark_with_an_empty_problem_is_refused(data, jsonl):
    path = jsonl([{"problem": " "}], "b.jsonl")
    with pytest.raises(UserError, match=r"b\.jsonl, row 1, column problem: the problem is empty"):
        data("decontaminate", jsonl([{"problem": SALE}]), "--against", path)


def test_dedup_keeps_the_first(data, jsonl):
    problems = [SALE, FRACTION, SALE.replace(" ", "  "), SALE.replace("Natalia", "Kim"), FRACTION.replace("18", "19")]
    kept, report = data("dedup", jsonl([{"problem": p, "i": i} for i, p in enumerate(problems)]))
    assert kept["i"] == [0, 1, 4]
    assert report["dropped"] == {"same": 1, "near copy": 1}
    assert report["examples"]["near copy"] == ["row 4 = 1"]
