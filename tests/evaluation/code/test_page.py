"""The page of answers shows programs with the test that they fail."""

import base64
import json
import re
import zlib

from evaluation.code.programs import ANSWERS, SUM
from evaluation.scripted import Scripted, evaluate_task, opened

from open_r1.evaluation.answers_page import write_report
from open_r1.evaluation.protocol import Protocol
from open_r1.evaluation.tasks import find_task, load_problems


def test_programs_their_tests_and_the_scores_of_groups_are_in_the_page(tmp_path):
    (tmp_path / "lcb.jsonl").write_text(json.dumps(SUM) + "\n")
    task, names = find_task("lcb"), ["right", "wrong", "no program"]
    texts = {0: [ANSWERS[name][1] for name in names]}
    protocol = Protocol("deepseek", 3, 0.6, 0.95, 100)
    out = tmp_path / "out"
    evaluate_task(task, load_problems(task, tmp_path), "m", opened(Scripted(texts)), protocol, out / "lcb")
    html = write_report(out).path.read_text()
    piece = re.search(r'id="piece-0-0-programs">([^<]*)</script>', html)[1]
    programs = json.loads(zlib.decompress(base64.b64decode(piece)))
    assert programs[0] == ["print(sum(map(int, input().split())))", "all tests pass"]
    assert programs[1][1] == "test 1 of 3: wrong answer\nInput:\n1 2\n\nExpected:\n3\n\nGot:\n-1\n"
    assert programs[2][0] is None
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
    shown = [sample[3] for sample in data["tasks"][0]["problems"][0]["samples"]]
    assert shown == ["all tests pass", "test 1 of 3: wrong answer", None]
    assert "lcb by difficulty: easy" in html
    assert "1 problem)" in html
