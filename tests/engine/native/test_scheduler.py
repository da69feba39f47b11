from open_r1.engine.native.pages import SCRATCH, PagePool
from open_r1.engine.native.scheduler import Group, Rollout, Scheduler, storage
from open_r1.engine.protocol import Sampling

SIZE = 4


def scheduler_of(slots=8, pages=100):
    return Scheduler(slots, PagePool(pages), SIZE)


def wait(scheduler, prompt, n=1, limit=10):
    group = Group(0, prompt, Sampling(n=n))
    scheduler.waiting.extend(Rollout(group, i, limit) for i in range(n))


def test_completions_of_a_prompt_share_its_full_pages_and_copy_the_last():
    scheduler = scheduler_of()
    wait(scheduler, list(range(11)), n=3)  # ten tokens are cached: two full pages, and half of a third
    admitted = scheduler.admit(steps=1)
    first, *others = admitted.rollouts
    assert [p.rollout for p in admitted.prefills] == [first]
    assert all(r.pages[:2] == first.pages[:2] for r in others)
    assert len({r.pages[2] for r in admitted.rollouts}) == 3
    assert admitted.copies == [(first.pages[2], r.pages[2]) for r in others]
    assert scheduler.pool.total - scheduler.pool.free == 2 + 3


def test_a_later_request_for_the_same_prompt_computes_nothing():
    scheduler = scheduler_of()
    wait(scheduler, list(range(9)))
    scheduler.admit(1)
    wait(scheduler, list(range(9)))
    later = scheduler.admit(1)
    assert (later.prefills, later.copies) == ([], [])
    assert later.rollouts[0].pages == scheduler.running[0].pages


def test_newcomers_join_many_at_a_time():
    scheduler = scheduler_of(slots=16)
    wait(scheduler, [1, 2], n=40)
    assert len(scheduler.admit(1).rollouts) == 16
    scheduler.retire(scheduler.running[:1])
    assert scheduler.admit(1).rollouts == []
    scheduler.retire(scheduler.running[:1])
    assert len(scheduler.admit(1).rollouts) == 2


def test_a_preempted_completion_is_first_in_line_and_computes_what_it_wrote():
    scheduler = scheduler_of()
    wait(scheduler, list(range(6)), n=2)
    scheduler.admit(1)
    wait(scheduler, [50])
    young = scheduler.running[1]
    young.tokens, young.logprobs = [7, 8, 9], [-1.0] * 3
    scheduler.preempt(young)
    assert scheduler.waiting[0] is young
    (prefill,) = scheduler.admit(1).prefills
    assert prefill.rollout is young
    pages, places = storage(prefill, SIZE)
    # The prompt's first page is its sibling's already; of the rest, keys and values are stored.
    assert pages.tolist() == [SCRATCH] * 4 + [young.pages[1]] * 4
    assert places.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_nobody_is_admitted_into_the_pages_that_others_are_about_to_need():
    scheduler = scheduler_of(pages=1 + 4)
    wait(scheduler, [1, 2, 3, 4], n=1, limit=12)
    wait(scheduler, [5] * 9, n=1, limit=4)
    (first,) = scheduler.admit(1).rollouts
    assert scheduler.reserve([first], 8)
    assert scheduler.admit(1).rollouts == []
    scheduler.advance([first], 12)
    assert scheduler.stepping() == []
    scheduler.retire([first])
    assert len(scheduler.admit(1).rollouts) == 1
