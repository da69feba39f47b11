"""The demo as users run it: from a base that is right sometimes, rewards alone find that thinking pays."""

import json

import pytest

from open_r1.demo import run


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("task", ["sums", "code"])
def test_every_way_of_learning_beats_the_base_by_far(tmp_path, seed, task):
    run.main(["--task", task, "--seed", str(seed), "--output", str(tmp_path / "demo")])
    stages = {s["name"]: s for s in json.loads((tmp_path / "demo/results.json").read_text())["stages"]}
    base = stages["base"]
    assert all(stage["n"] >= 512 for stage in stages.values())
    assert 0.15 <= base["accuracy"] <= 0.5
    for name in ("zero", "multi_stage"):
        assert stages[name]["accuracy"] >= base["accuracy"] + 0.25
        assert stages[name]["mean_tokens"] > base["mean_tokens"]
    assert max(stage["accuracy"] for stage in stages.values()) >= 0.8
