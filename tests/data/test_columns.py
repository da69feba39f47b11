import pytest
from datasets import Dataset
from toys import make_tokenizer

from open_r1.data.chat import prepare_tokenizer
from open_r1.data.columns import gold_path, require_gold
from open_r1.data.prompts import prompt_rows
from open_r1.errors import UserError
from open_r1.generation.problems import Problems
from open_r1.options.columns import ColumnOptions

VERL = {
    "data_source": "math_dapo",
    "prompt": [{"role": "user", "content": "What is 1+1? Answer: $Answer"}],
    "ability": "MATH",
    "reward_model": {"ground_truth": "2", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "1", "question": "1+1?"},
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return prepare_tokenizer(str(make_tokenizer(tmp_path_factory.mktemp("tokenizer"))))


def test_rows_of_verl_and_dapo_train_as_they_are(tokenizer):
    row = prompt_rows(Dataset.from_list([VERL]), tokenizer)[0]
    assert row["answer"] == "2"
    assert row["prompt"] == VERL["prompt"]
    assert row["reward_model"] == VERL["reward_model"]


def test_dotted_names_reach_into_columns(tokenizer):
    row = {"info": {"question": "1+1?", "gold": {"value": 2}}, "solution": "3"}
    made = prompt_rows(
        Dataset.from_list([row]),
        tokenizer,
        ColumnOptions(prompt_column="info.question", answer_column="info.gold.value"),
    )[0]
    assert made["answer"] == "2"
    assert made["prompt"] == [{"role": "user", "content": "1+1?"}]


def test_a_column_with_a_dot_in_its_name_is_that_column(tokenizer):
    row = {"prompt": "1+1?", "reward.gold": "2", "reward": {"gold": "3"}}
    assert (
        prompt_rows(Dataset.from_list([row]), tokenizer, ColumnOptions(answer_column="reward.gold"))[0]["answer"] == "2"
    )


def test_columns_of_our_own_come_before_those_of_others():
    assert gold_path(Dataset.from_list([VERL]), None) == "reward_model.ground_truth"
    assert gold_path(Dataset.from_list([{**VERL, "answer": "2"}]), None) is None


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("reward_model.truth", r"'reward_model' has no field 'truth'; its fields are: ground_truth, style"),
        ("ability.x", r"'ability' has no field 'x'; it has no fields"),
        ("gold", r"no column 'gold'; there are: data_source, prompt.*--answer_column"),
        ("gold.x", r"no column 'gold'"),
    ],
)
def test_names_that_lead_nowhere_are_told(named, message):
    with pytest.raises(UserError, match=message):
        require_gold(Dataset.from_list([VERL]), named, ["accuracy"])


def test_a_dataset_without_a_gold_is_refused_if_a_reward_needs_one():
    rows = Dataset.from_list([{"prompt": "1+1?", "level": 1}])
    with pytest.raises(UserError, match=r"accuracy needs the right answer.*there are: prompt, level.*--answer_column"):
        require_gold(rows, None, ["accuracy"])
    require_gold(rows, None, [])


def test_an_empty_gold_names_its_row_and_path(tokenizer):
    rows = Dataset.from_list([VERL, {**VERL, "reward_model": {"ground_truth": "", "style": "rule"}}])
    with pytest.raises(UserError, match=r"row 2, column reward_model.ground_truth: the right answer is empty"):
        prompt_rows(rows, tokenizer)


def test_generate_takes_dotted_columns_too():
    rows = [{"item": {"text": "1 + 1"}, "reward_model": {"ground_truth": str(i)}} for i in range(3)]
    problems = Problems(
        Dataset.from_list(rows),
        ColumnOptions(prompt_column="item.text"),
        template="{{ instruction }} = ?",
    )
    assert [(p.conversation.messages[0]["content"], p.gold) for p in problems.read([0, 2])] == [
        ("1 + 1 = ?", "0"),
        ("1 + 1 = ?", "2"),
    ]
    with pytest.raises(UserError, match="'reward_model' has no field 'truth'; its fields are: ground_truth"):
        Problems(Dataset.from_list(rows), ColumnOptions(prompt_column="item.text", answer_column="reward_model.truth"))
