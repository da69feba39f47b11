import subprocess
import sys
from types import SimpleNamespace

import pytest

from open_r1.errors import UserError
from open_r1.rewards import BEST, RewardError, get_reward_funcs, gold_completion, score


def funcs(*names):
    return get_reward_funcs(SimpleNamespace(reward_funcs=list(names)))


def test_names_of_functions_are_those_of_open_r1():
    names = [f.__name__ for f in funcs("accuracy", "format", "tag_count")]
    assert names == ["accuracy_reward", "format_reward", "tag_count_reward"]


def test_unknown_name_lists_known_ones_and_the_nearest():
    with pytest.raises(UserError, match=r"'acuracy'.*Did you mean 'accuracy'.*tag_count.*my_module:my_reward"):
        funcs("acuracy")


def test_user_function_is_imported_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text("def even(completions):\n    return [0.5 for _ in completions]\n")
    monkeypatch.chdir(tmp_path)
    rows = score(funcs("mine_for_test:even"), prompts=["a", "b"], completions=["x", "y"])
    assert rows == [{"even": 0.5}, {"even": 0.5}]
    with pytest.raises(UserError, match="no function 'odd'"):
        funcs("mine_for_test:odd")
    with pytest.raises(UserError, match="no module 'nowhere_at_all'"):
        funcs("nowhere_at_all:f")


@pytest.mark.parametrize("missing", ["parent_for_test.absent", "absent_for_test"])
def test_a_missing_package_of_the_given_module_is_named(tmp_path, monkeypatch, missing):
    (tmp_path / "parent_for_test").mkdir()
    (tmp_path / "parent_for_test" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for rest in (".module", ".inner.module"):
        file = f"{missing}{rest}".replace(".", "/") + ".py"
        with pytest.raises(UserError, match=f"there is no module '{missing}': put {file} in the working directory"):
            funcs(f"{missing}{rest}:f")


@pytest.mark.parametrize(
    "written", ["./my_rewards.py", "my_rewards.py", "sub/../my_rewards.py", "{here}/my_rewards.py"]
)
def test_a_reward_is_found_in_a_file(tmp_path, monkeypatch, written):
    (tmp_path / "sub").mkdir()
    (tmp_path / "beside_my_rewards.py").write_text("WORTH = 0.5\n")
    (tmp_path / "my_rewards.py").write_text(
        "from beside_my_rewards import WORTH\n\ndef brevity(completions, **kwargs):\n"
        "    return [WORTH for _ in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (reward,) = funcs(f"{written.format(here=tmp_path)}:brevity")
    assert reward(completions=["a", "b"]) == [0.5, 0.5]
    assert reward.__name__ == "brevity"
    sys.modules.pop("beside_my_rewards")


@pytest.mark.parametrize(
    ("path", "message"), [("nowhere.py:f", "is not a Python file"), ("mine.py:g", "no function 'g'")]
)
def test_a_path_that_leads_nowhere_is_named(tmp_path, monkeypatch, path, message):
    (tmp_path / "mine.py").write_text("f = len\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UserError, match=message):
        funcs(path)


@pytest.mark.parametrize("written", ["{name}:f", "{name}.py:f"])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import not_installed_anywhere\n",
            r"ModuleNotFoundError: .*'not_installed_anywhere' \(.*, line 1",
        ),
        ("def f(:\n", r"SyntaxError: invalid syntax \(.*, line 1"),
        ("\nWORTH = 1 / 0\n", r"ZeroDivisionError: .*\.py, line 2"),
    ],
)
def test_what_fails_inside_the_users_module_is_named(tmp_path, monkeypatch, written, source, message):
    (tmp_path / "broken_for_test.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UserError, match=f"broken_for_test.*cannot be imported: {message}"):
        funcs(written.format(name="broken_for_test"))


@pytest.mark.parametrize("prompt", ["2+2?", "2+2?<think>\n", "2+2?<think>", [{"role": "user", "content": "2+2?"}]])
@pytest.mark.parametrize("gold", ["4", r"\frac{1}{2}", "$x+1$", "so we get $\\boxed{\\sqrt{2}}$"])
def test_gold_completion_gets_the_maximum(prompt, gold):
    completion = gold_completion(gold, prompt=prompt)
    rows = score(funcs(*BEST), prompts=[prompt], completions=[completion], columns={"solution": [gold]})
    assert list(rows[0].values()) == list(BEST.values())


@pytest.mark.parametrize(("gold", "right"), [(17, "17"), (["17"], "17"), ([r"\frac12", "3"], r"\frac{1}{2}, 3")])
def test_gold_answers_may_be_numbers_and_lists(gold, right):
    rows = score(
        funcs("accuracy"),
        prompts=["p", "p"],
        completions=[rf"\boxed{{{right}}}", r"\boxed{5}"],
        columns={"answer": [gold] * 2},
    )
    assert [row["accuracy_reward"] for row in rows] == [1.0, 0.0]


def test_think_opened_by_the_template_is_seen_through_prompt_texts():
    messages = [{"role": "user", "content": "2+2?"}]
    completion = gold_completion("4", prompt="...<think>\n")
    row = score(
        funcs("format", "tag_count"), prompts=[messages], completions=[completion], prompt_texts=["...<think>\n"]
    )
    assert row == [{"format_reward": 1.0, "tag_count_reward": 1.0}]
    row = score(funcs("format"), prompts=[messages], completions=[completion])
    assert row == [{"format_reward": 0.0}]


MESSAGES = [{"role": "user", "content": "p"}]


def test_functions_get_messages_columns_and_ids():
    seen = {}

    def spy(prompts, completions, completion_ids, level, **kwargs):
        seen.update(prompts=prompts, completions=completions, ids=completion_ids, level=level)
        return [1, None]

    rows = score(
        [spy], prompts=["p", MESSAGES], completions=["a", "b"], completion_ids=[[1], [2]], columns={"level": ["3", "4"]}
    )
    assert rows == [{"spy": 1.0}, {"spy": None}]
    assert seen["completions"] == ["a", [{"role": "assistant", "content": "b"}]]
    assert seen["ids"] == [[1], [2]] and seen["level"] == ["3", "4"]


def test_coroutines_are_awaited_also_inside_a_running_loop():
    import asyncio

    async def slow(completions, **kwargs):
        await asyncio.sleep(0)
        return [float("nan")] * len(completions)

    async def main():
        return score([slow], prompts=["p"], completions=["a"])

    assert asyncio.run(main()) == [{"slow": None}]


def test_a_reward_that_raises_names_itself_step_and_row():
    def picky(completions, **kwargs):
        return [1 / (len(c[0]["content"]) - 2) for c in completions]

    with pytest.raises(RewardError, match=r"'picky' failed at step 7 on row 1: ZeroDivisionError") as error:
        score([picky], prompts=[MESSAGES] * 3, completions=["a", "bb", "ccc"], step=7)
    assert (error.value.reward, error.value.row, error.value.step) == ("picky", 1, 7)


@pytest.mark.parametrize(
    ("returned", "message"),
    [([1.0], "1 values for 2 completions"), (0.5, "returned float"), (["x", 1], "'x' on row 0"), ([1, 1e999], "row 1")],
)
def test_what_a_reward_returns_is_checked(returned, message):
    with pytest.raises(UserError, match=message):
        score([lambda completions: returned], prompts=["p"] * 2, completions=["a", "b"])


def positional(completions, /):
    return [0.0] * len(completions)


def with_level(completions, level):
    return [0.0] * len(completions)


def breaks_off(completions):
    yield 1.0
    raise ValueError("no more")


def short_on_b(completions):
    return [1.0 for c in completions if c != "b"]


@pytest.mark.parametrize(
    ("function", "message", "row"),
    [
        (max, "reward 'max' at step 3: it has no signature", None),
        (len, "reward 'len' at step 3: it takes 'obj' by position only", None),
        (positional, "reward 'positional' at step 3: it takes 'completions' by position only", None),
        (with_level, "reward 'with_level' at step 3: it needs 'level', but the dataset has no such column", None),
        (breaks_off, "reward 'breaks_off' failed at step 3 on row 0: ValueError: no more", 0),
        (short_on_b, "reward 'short_on_b' failed at step 3 on row 1: ValueError: it returned 0 values", 1),
    ],
)
def test_functions_that_cannot_be_called_are_named_with_step_and_row(function, message, row):
    with pytest.raises(RewardError, match=message) as error:
        score([function], prompts=["p"] * 2, completions=["a", "b"], step=3)
    assert (error.value.row, error.value.step) == (row, 3)


def test_a_completion_that_is_no_text_is_named_by_its_row():
    with pytest.raises(UserError, match="row 1: the completion is None: it must be text or a list of messages"):
        score(funcs("format"), prompts=["p"] * 2, completions=["a", None])
    for function in get_reward_funcs(SimpleNamespace(reward_funcs=["accuracy", "format", "length", "reasoning_steps"])):
        with pytest.raises(UserError, match="row 0: the completion is None"):
            function([None], solution=["5"])
    with pytest.raises(UserError, match="column 'solution' has 2 values for 1 completions"):
        funcs("accuracy")[0](["5"], solution=["5", "6"])


def test_a_malformed_row_of_a_registered_reward_is_named_with_the_step():
    with pytest.raises(RewardError, match="reward 'code_reward' at step 2: row 1: verification_info") as error:
        score(
            funcs("code"), prompts=["p"] * 2, completions=["a", "b"], columns={"verification_info": ["", "no"]}, step=2
        )
    assert error.value.row == 1


def test_missing_gold_column_is_one_sentence():
    with pytest.raises(UserError, match="neither a column 'answer' nor a column 'solution'"):
        score(funcs("accuracy"), prompts=["p"], completions=["a"])


def test_the_room_imports_neither_torch_nor_sympy():
    code = (
        "import sys, open_r1.rewards as r\n"
        "from types import SimpleNamespace as S\n"
        "r.score(r.get_reward_funcs(S(reward_funcs=['accuracy', 'format', 'tag_count'])), prompts=['p'],"
        " completions=[r'\\boxed{4}'], columns={'answer': ['4']})\n"
        "assert not {'torch', 'transformers', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_extras_reach_functions_that_take_them():
    def with_state(completions, trainer_state, **kwargs):
        return [float(trainer_state)] * len(completions)

    def without(completions):
        return [0.0] * len(completions)

    rows = score([with_state, without], prompts=["p"], completions=["a"], extras={"trainer_state": 3})
    assert rows == [{"with_state": 3.0, "without": 0.0}]
