import xml.etree.ElementTree as ET
from pathlib import Path

from open_r1.report.plan import draw_plan
from open_r1.report.svg import as_file

ROOT = Path(__file__).parents[2]


def test_the_drawing_in_the_readme_is_the_current_one():
    """Mend with: `python -c "from open_r1.report import curves, plan; print(curves.as_file(plan.draw_plan()), end='')" > docs/plan.svg`."""  # noqa: E501
    assert (ROOT / "docs/plan.svg").read_text() == as_file(draw_plan())


def test_models_show_their_accuracy_where_it_is_known():
    text = "".join(ET.fromstring(draw_plan({"base": 0.384, "zero": 0.91})).itertext())
    assert "38% right" in text and "91% right" in text
    assert "right" not in "".join(ET.fromstring(draw_plan()).itertext())
