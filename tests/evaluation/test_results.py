"""Figures from graded samples."""

from open_r1.evaluation.results import summarise


def row(index, sample, correct, **more):
    answer = None if correct is None else "7"
    return {"index": index, "sample": sample, "correct": correct, "extracted": answer, "n_tokens": 10} | {
        "finish_reason": "stop",
        **more,
    }


def test_ungradable_samples_count_as_wrong_and_are_told():
    figures = summarise([row(0, 0, True), row(0, 1, None), row(1, 0, False), row(1, 1, True)])
    assert (figures["pass@1"], figures["ungradable"], figures["pass@k"]["2"]["value"]) == (0.5, 0.25, 1.0)


def test_samples_that_were_cut_off_and_those_without_an_answer_are_told_apart():
    cut = row(1, 0, False, finish_reason="length", extracted=None)
    figures = summarise([row(0, 0, True), cut, row(2, 0, False), row(3, 0, False, extracted=None)])
    assert (figures["truncated"], figures["no_answer"], figures["ungradable"]) == (0.25, 0.5, 0.0)
