"""`examples/gsm8k/variants.py`: new numbers for a problem, and solutions as equations alone."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "gsm8k" / "variants.py"
spec = importlib.util.spec_from_file_location("variants", SCRIPT)
variants = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = variants  # for the processes of `passes`
spec.loader.exec_module(variants)

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "Natalia sell altogether?",
    "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether.\n#### 72",
)
SHOP = (
    "A class of 30 pays $1,200 for a trip. 4 children cannot pay. How much does each other child pay, with $10 added?",
    "30 - 4 = 26 children pay.\nEach pays 1,300 / 26 = $50.\n#### 50",
)
PIZZA = (
    "Jim has 3 boxes with 8 pizzas/box and eats 4 pizzas. How many are left for 2 friends?",
    "He has 3 boxes * 8 pizzas/box = 24 pizzas.\nThen 24 − 4 = 20 are left.\n#### 20",
)


def drawn(pair, seed):
    template = variants.Template.read(*pair)
    return template and template.draw(seed)


@pytest.mark.parametrize("pair", [CLIPS, PIZZA])
def test_a_variant_is_right_and_says_the_same_with_other_numbers(pair):
    found = {drawn(pair, str(seed)) for seed in range(20)}
    assert len(found) > 5
    for problem, solution in found:
        assert re.sub(r"\d+", "#", problem) == re.sub(r"\d+", "#", pair[0])
        assert re.sub(r"\d+", "#", solution) == re.sub(r"\d+", "#", pair[1])
        for left, right in re.findall(r"([^=\n]+)=\s*(\d+)", solution):
            left = re.sub(r"pizzas/box|[a-zA-Z.]", "", left).replace("−", "-")
            assert eval(left) == int(right)
        assert solution.rpartition("#### ")[2] == re.findall(r"= (\d+)", solution)[-1]
        numbers = re.findall(r"\d+", problem)
        assert all(number in solution for number in numbers if number != "2")


def test_a_number_that_nothing_explains_makes_no_variant():
    assert variants.Template.read(*SHOP) is None  # 1,300 is neither in the problem nor a result


@pytest.mark.parametrize(
    "problem, solution",
    [
        ("He has 20 apples, 5 are bad.", "Let x be good.\nx = 20 - 5\nx = 15\n#### 15"),
        ("He has 20 apples, 5 are bad.", "So 20 - 5 = 16 are good.\n#### 16"),
        ("He has 7 apples for 2 children.", "Each gets 7 / 2 = 3 apples, 3 and a half.\n#### 3"),
        ("He has 20 apples, 5 are bad.", "So 20 - 5 = 15 are good.\n#### 14"),
    ],
)
def test_what_is_not_understood_makes_no_variant(problem, solution):
    assert variants.Template.read(problem, solution) is None


def test_percentages_fractions_and_what_a_word_stands_for_stay():
    pair = (
        "He reads 20% of 400 pages a week, 1/4 of 80 pages on the 2nd day, at 3:30. How many pages in 7 days?",
        "20/100*400 = 80\n80*1/4 = 20\n7*20 = 140\n#### 140",
    )
    template = variants.Template.read(*pair)
    assert template is not None and template.free == {400}


def test_results_that_are_whole_stay_whole_and_positive():
    pair = ("24 cookies for 4 children, 5 are eaten before. How many has each?", "24/4 = 6\n6-5 = 1\n#### 1")
    for seed in range(50):
        if found := drawn(pair, str(seed)):
            a, b, c = map(int, re.findall(r"\d+", found[0]))
            assert a % b == 0 and a / b > c


def test_decimals_are_written_as_in_the_solution():
    pair = ("3 pens cost 0.5 coins each. How much is left of 9 coins?", "3*0.5 = 1.5\n9-1.5 = 7.5\n#### 7.5")
    found = {drawn(pair, str(seed)) for seed in range(20)} - {None}
    assert found and all(re.fullmatch(r"\d+(\.5)?", solution.rpartition(" ")[2]) for _, solution in found)


def test_each_pass_has_other_numbers_and_what_cannot_be_varied_as_it_is():
    first, second, third = variants.passes([CLIPS, SHOP], 3, seed=1)
    assert first == [CLIPS, SHOP]
    assert len({CLIPS, second[0], third[0]}) == 3
    assert second[1] == third[1] == SHOP
    assert variants.passes([CLIPS, SHOP], 3, seed=1) == [first, second, third]
    assert variants.passes([CLIPS], 2, seed=2)[1] != variants.passes([CLIPS], 2, seed=3)[1]


def test_only_equations():
    assert variants.only_equations(CLIPS[1]) == "48/2=24\n48+24=72\n#### 72"
    assert variants.only_equations(PIZZA[1]) == "3*8=24\n24-4=20\n#### 20"
    assert variants.only_equations("It is 3 + 4 = 7.\n#### 8") is None
    assert variants.only_equations("She has 3 apples.\n#### 3") is None
