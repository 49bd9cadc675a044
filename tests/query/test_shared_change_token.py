"""A change token that several callers share is read after all of them came."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.errors import LedgerUnavailable
from ledger.recorders.contract import ChangeToken
from projections.query.timeline_cache import SharedChangeToken


def test_callers_that_come_during_a_reading_share_the_next_one() -> None:
    reading, go_on = threading.Event(), threading.Event()
    begun: list[int] = []

    def read() -> ChangeToken:
        begun.append(len(begun) + 1)
        mark = begun[-1]
        reading.set()
        assert go_on.wait(10)
        return (mark,)

    shared = SharedChangeToken(read)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(shared.read)
        assert reading.wait(10)
        others = [pool.submit(shared.read) for _ in range(4)]
        # They wait behind the first caller, and must not get its token, whose reading began before they came.
        for other in others:
            assert not other.done()
        go_on.set()
        assert first.result(10) == (1,)
        marks = [other.result(10) for other in others]
    assert all(mark > (1,) for mark in marks)


def test_a_single_caller_has_the_token_read_anew() -> None:
    numbers = iter(range(10))
    shared = SharedChangeToken(lambda: (next(numbers),))
    assert [shared.read() for _ in range(3)] == [(0,), (1,), (2,)]


def test_a_failed_reading_is_tried_again_for_the_next_caller() -> None:
    answers = iter([LedgerUnavailable("gone"), (7,)])

    def read() -> ChangeToken:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]  # what is no error is a mark

    shared = SharedChangeToken(read)
    with pytest.raises(LedgerUnavailable):
        shared.read()
    assert shared.read() == (7,)
