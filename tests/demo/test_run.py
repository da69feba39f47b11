import json
from contextlib import nullcontext

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_r1.demo import run, stages
from open_r1.demo.evaluate import Score
from open_r1.demo.sums import SUMS
from open_r1.errors import UserError
from open_r1.evaluation import answers_page, compare

NAMES = ["base", "distil", "zero", "multi_stage"]


@pytest.fixture(scope="module")
def fast_demo(tmp_path_factory):
    """The real thing, in its short form."""
    folder = tmp_path_factory.mktemp("demo")
    run.main(["--fast", "--output", str(folder / "out")])
    return folder / "out"


def test_fast_demo_leaves_results_models_and_report(fast_demo):
    results = json.loads((fast_demo / "results.json").read_text())
    assert [stage["name"] for stage in results["stages"]] == NAMES
    assert results["seconds"] > 0
    for stage in results["stages"]:
        assert set(stage) == {"name", "accuracy", "ci95", "n", "mean_tokens", "seconds"}
        assert stage["ci95"][0] <= stage["accuracy"] <= stage["ci95"][1]
        AutoModelForCausalLM.from_pretrained(fast_demo / stage["name"])
        AutoTokenizer.from_pretrained(fast_demo / stage["name"])
        assert (fast_demo / stage["name"] / "evaluation/sums/samples.parquet").exists()
    assert (fast_demo / "report.html").exists()


def test_fast_demo_shows_the_effect(fast_demo):
    stages = {s["name"]: s for s in json.loads((fast_demo / "results.json").read_text())["stages"]}
    assert 0.15 <= stages["base"]["accuracy"] <= 0.5
    for name in ("distil", "zero", "multi_stage"):
        assert stages[name]["accuracy"] > stages["base"]["accuracy"] + 0.05
        assert stages[name]["mean_tokens"] > stages["base"]["mean_tokens"]


def test_report_and_compare_read_the_demo(fast_demo, tmp_path, capsys):
    page = tmp_path / "answers.html"
    answers_page.main([str(fast_demo / "zero/evaluation"), "--output", str(page)])
    assert "What is " in page.read_text()
    compare.main([str(fast_demo / "base"), str(fast_demo / "zero")])
    right = {s["name"]: s["accuracy"] for s in json.loads((fast_demo / "results.json").read_text())["stages"]}
    shown = capsys.readouterr().out
    assert f"{right['base']:.1%}" in shown and f"{right['zero']:.1%}" in shown


def test_finished_demo_trains_nothing_again(fast_demo, capsys):
    before = (fast_demo / "results.json").read_text()
    run.main(["--fast", "--output", str(fast_demo)])
    assert capsys.readouterr().out.count("already finished") == len(NAMES)
    assert (fast_demo / "results.json").read_text() == before


def test_interrupted_demo_continues_from_the_last_finished_stage(tmp_path, monkeypatch, capsys):
    trained = []

    def fake(name):
        def train(demo):
            trained.append(name)
            (demo.output / name).mkdir()
            (demo.output / name / "half").touch()
            if name == "zero" and trained.count("zero") == 1:
                raise KeyboardInterrupt

        return train

    monkeypatch.setattr(stages, "STAGES", {name: fake(name) for name in NAMES})
    monkeypatch.setattr(stages.Demo, "score", lambda self, stage: Score(0.5, (0.4, 0.6), 512, 30.0))
    monkeypatch.setattr("open_r1.report.demo_page.write_demo_report", lambda folder: folder / "report.html")
    argv = ["--seed", "1", "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        run.main(argv)
    assert stopped.value.code == 130
    assert f"open-r1 demo --output {tmp_path / 'out'} --seed 1" in capsys.readouterr().err
    run.main(argv)
    assert trained == ["base", "distil", "zero", "zero", "multi_stage"]
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["stages"]) == 4


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    run.claim_folder(tmp_path / "out", run.Settings(seed=0, fast=True, from_scratch=False))
    with pytest.raises(UserError, match="with seed 0, but seed is now 1"):
        run.claim_folder(tmp_path / "out", run.Settings(seed=1, fast=True, from_scratch=False))
    with pytest.raises(UserError, match="fast on, but fast is now off"):
        run.claim_folder(tmp_path / "out", run.Settings(seed=0, fast=False, from_scratch=False))


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="has other content"):
        run.main(["--output", str(tmp_path)])
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_seed_that_random_generators_refuse_is_named(tmp_path):
    with pytest.raises(UserError, match="seed is -1"):
        run.main(["--seed", "-1", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_training_problems_are_not_held_out(tmp_path):
    demo = stages.Demo(SUMS, tmp_path, 0, stages.FAST, False, lambda message: nullcontext(lambda count: None))
    stages.write_problems(demo)
    questions = {json.loads(line)["prompt"] for line in demo.problems_file.read_text().splitlines()}
    assert len(questions) == stages.TRAINING_PROBLEMS
    held_out = {p.question for p in SUMS.held_out(512)}
    assert not questions & held_out
    assert {json.loads(line)["problem"] for line in demo.held_out_file.read_text().splitlines()} == held_out


def test_results_table_shows_every_stage():
    stage = {"accuracy": 0.5, "ci95": [0.4, 0.6], "n": 512, "mean_tokens": 30.0, "seconds": 10.0}
    console = Console(record=True, width=100)
    console.print(run.results_table({"stages": [{"name": n, **stage} for n in NAMES], "seconds": 40.0}))
    shown = console.export_text()
    assert all(name in shown for name in NAMES)
    assert "40.0% to 60.0%" in shown
