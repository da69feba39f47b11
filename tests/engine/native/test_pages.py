import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_r1.engine.native.pages import SCRATCH, PagePool, pages_for


@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_page_has_as_many_holders_as_took_or_shared_it(sizes):
    pool = PagePool(20)
    held = []
    for size in sizes:
        if size == 0 and held:
            pool.release(held.pop(0))
        elif size == 1 and held:
            pool.share(held[-1])
            held.append(list(held[-1]))
        elif size <= pool.free:
            held.append(pool.take(size))
        distinct = {page for pages in held for page in pages}
        assert SCRATCH not in distinct
        assert pool.free == pool.total - len(distinct)
    for pages in held:
        pool.release(pages)
    assert sorted(pool.take(pool.total)) == list(range(1, 20))


def test_more_than_all_is_refused():
    with pytest.raises(ValueError, match="3 pages requested, 2 are free"):
        PagePool(3).take(3)


def test_a_page_is_counted_when_it_is_begun():
    assert [pages_for(n, 4) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
