"""Two processes evaluate, pick the best model and run benchmarks, also where the second has nothing of its own."""

import json

import pytest
from runs import arguments, assert_same_weights, launch, make_folder, metrics

FEW = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_steps": 1,
    "max_steps": 2,
    "dataset_test_split": "train[:1]",
    "load_best_model_at_end": "true",
    "benchmarks_every_n_steps": 1,
    "benchmarks_num_samples": 1,
    "benchmarks_max_new_tokens": 4,
    "per_device_train_batch_size": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("toy"))
    (folder / "one.jsonl").write_text(json.dumps({"problem": "What is 1+1?", "answer": "2"}) + "\n")
    return folder


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("sft", {"metric_for_best_model": "eval_loss", "greater_is_better": "true", "learning_rate": 0.01}),
        ("grpo", {"num_generations": 8, "metric_for_best_model": "reward"}),
    ],
)
def test_a_rank_without_a_row_of_its_own_evaluates_with_the_other(folder, tmp_path, task, options):
    """One evaluation row, one benchmark problem and, for GRPO, one prompt a step."""
    out = tmp_path / "out"
    launch(task, arguments(folder, task, out, benchmarks=folder / "one.jsonl", **FEW, **options), processes=2)
    lines = metrics(out)
    figure = {"sft": "eval_loss", "grpo": "eval_reward"}[task]
    assert [line["step"] for line in lines if figure in line] == [1, 2]
    assert [line["step"] for line in lines if "eval_one_pass@1" in line] == [1, 2]
    values = [line[figure] for line in lines if figure in line]
    assert_same_weights(out, out / f"checkpoint-{1 + values.index(max(values))}")
