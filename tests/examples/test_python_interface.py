"""The notebook runs from its first cell to its last, on a CPU."""

import json
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "examples" / "python_interface.ipynb"


def test_the_notebook_trains_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None, "clear the outputs before committing"
            exec("".join(cell["source"]), names)
    assert names["trainer"].state.global_step == 6 and len(names["rewards"]) == 6
    assert 0.2 < names["before"] < 0.6 and names["after"] > 0.2
    assert (tmp_path / "runs/notebook/model.safetensors").exists()
    assert names["best"]["reward"] >= 2  # a right answer: 1 from each of both rewards
