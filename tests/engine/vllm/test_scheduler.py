"""Completions that vLLM's scheduler holds back until they are finished. (A real one: test_server.py.)"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from open_r1.engine.vllm.scheduler import WHOLE, WholeCompletions


class Logprobs(NamedTuple):
    logprob_token_ids: np.ndarray
    logprobs: np.ndarray
    sampled_token_ranks: np.ndarray
    cu_num_generated_tokens: None = None


class Base:
    """As much of vLLM's scheduler as is built upon: each step tells of the outputs that it is given, by client."""

    def __init__(self, **options):
        self.requests = {}

    def add_request(self, request):
        self.requests[request.request_id] = request

    def update_from_output(self, told, _):
        for outputs in told.values():
            for output in outputs.outputs:
                if output.finish_reason:
                    del self.requests[output.request_id]
        return told

    def finish_requests(self, names, status):
        for name in names:
            self.requests.pop(name)
        return names


class Scheduler(WholeCompletions, Base):
    """Both."""


def output(name, *tokens, logprobs=True, finish=None, events=None, experts=False):
    """Of one step: each token's logprob is minus the token, its experts are the token in each of two layers."""
    column = np.array(tokens).reshape(-1, 1)
    lists = Logprobs(column, -column.astype("f4"), np.ones(len(tokens), int)) if logprobs and tokens else None
    routed = np.repeat(column[:, None], 2, axis=1) if experts else None
    return SimpleNamespace(
        **{"request_id": name, "new_token_ids": list(tokens), "new_logprobs": lists, "routed_experts": routed},
        **{"finish_reason": finish, "events": events},
    )


def step(scheduler, *outputs, stats=None, finished=None):
    """(request, token ids, logprobs) of what client 0 is told; None if it is told nothing."""
    told = SimpleNamespace(outputs=list(outputs), scheduler_stats=stats, finished_requests=finished)
    found = scheduler.update_from_output({0: told}, None).get(0)
    if found is None:
        return None
    return [
        (o.request_id, o.new_token_ids, None if o.new_logprobs is None else o.new_logprobs.logprobs[:, 0].tolist())
        for o in found.outputs
    ]


def scheduler_with(**requests):
    scheduler = Scheduler()
    for name, whole in requests.items():
        params = SimpleNamespace(extra_args={WHOLE: True} if whole else None)
        scheduler.add_request(SimpleNamespace(request_id=name, sampling_params=params))
    return scheduler


def test_a_completion_is_told_of_when_it_begins_and_when_it_is_finished():
    scheduler = scheduler_with(a=True)
    assert step(scheduler, output("a", 1)) == [("a", [1], [-1.0])]
    assert step(scheduler, output("a", 2)) is None
    assert step(scheduler, output("a", 3, 4)) is None
    last = output("a", 5, finish="stop")
    assert step(scheduler, last) == [("a", [2, 3, 4, 5], [-2.0, -3.0, -4.0, -5.0])]
    assert last.new_logprobs.logprob_token_ids[:, 0].tolist() == [2, 3, 4, 5]
    assert len(last.new_logprobs.sampled_token_ranks) == 4
    assert not scheduler._held


def test_others_are_told_of_every_token():
    scheduler = scheduler_with(a=True, b=False)
    step(scheduler, output("a", 1), output("b", 1))
    assert step(scheduler, output("a", 2), output("b", 2)) == [("b", [2], [-2.0])]
    assert step(scheduler, output("a", 3, finish="length")) == [("a", [2, 3], [-2.0, -3.0])]
    assert step(scheduler, output("b", 3)) == [("b", [3], [-3.0])]


def test_a_completion_of_one_token_is_told_of_once_and_without_logprobs_there_are_none():
    scheduler = scheduler_with(a=True, b=True)
    assert step(scheduler, output("a", 1, finish="stop"), output("b", 1, logprobs=False)) == [
        ("a", [1], [-1.0]),
        ("b", [1], None),
    ]
    assert step(scheduler, output("b", 2, logprobs=False)) is None
    assert step(scheduler, output("b", 3, logprobs=False, finish="stop")) == [("b", [2, 3], None)]


def test_an_end_without_a_token_and_news_of_other_kinds_bring_what_was_held():
    scheduler = scheduler_with(a=True)
    step(scheduler, output("a", 1))
    step(scheduler, output("a", 2))
    assert step(scheduler, output("a", 3, events=["preempted"])) == [("a", [2, 3], [-2.0, -3.0])]
    step(scheduler, output("a", 4))
    assert step(scheduler, output("a", finish="error")) == [("a", [4], [-4.0])]


def test_statistics_and_names_of_finished_requests_are_passed_on():
    scheduler = scheduler_with(a=True)
    step(scheduler, output("a", 1))
    assert step(scheduler, output("a", 2), stats="stats") == []
    assert step(scheduler, output("a", 3), finished={"z"}) == []


def test_of_several_logprobs_a_token_the_first_is_its_own():
    """Others in the batch may ask for more."""
    scheduler = scheduler_with(a=True)
    step(scheduler, output("a", 1))
    for token, finish in ((2, None), (3, "stop")):
        last = output("a", token, finish=finish)
        wide = np.array([[token, 8, 9]])
        last.new_logprobs = Logprobs(wide, -wide.astype("f4"), np.ones(1, int))
        told = step(scheduler, last)
    assert told == [("a", [2, 3], [-2.0, -3.0])]


def test_each_front_end_is_told_of_its_own():
    scheduler = scheduler_with(a=True, b=True)
    step(scheduler, output("a", 1), output("b", 1))
    told = {
        client: SimpleNamespace(outputs=[made], scheduler_stats=None, finished_requests=None)
        for client, made in ((0, output("a", 2)), (1, output("b", 2, finish="stop")))
    }
    assert list(scheduler.update_from_output(told, None)) == [1]


def test_what_is_aborted_is_forgotten():
    scheduler = scheduler_with(a=True, b=True)
    step(scheduler, output("a", 1), output("b", 1))
    step(scheduler, output("a", 2), output("b", 2))
    assert scheduler.finish_requests(["a"], "aborted") == ["a"]
    assert list(scheduler._held) == ["b"]
    assert step(scheduler, output("b", 3, finish="stop")) == [("b", [2, 3], [-2.0, -3.0])]


def test_experts_of_tokens_that_were_held_back_come_with_them():
    scheduler = scheduler_with(a=True)
    first, last = output("a", 1, experts=True), output("a", 4, finish="stop", experts=True)
    for one in (first, output("a", 2, experts=True), output("a", 3, experts=True), last):
        step(scheduler, one)
    assert first.routed_experts.tolist() == [[[1], [1]]]
    assert last.routed_experts.tolist() == [[[2], [2]], [[3], [3]], [[4], [4]]]
