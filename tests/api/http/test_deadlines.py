"""Work that takes too long ends with TimeoutError, however many tasks wait; no other work is ended."""

import asyncio
import time

import pytest

from api.http.deadlines import Deadlines

SECONDS = 0.05


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def in_time() -> str:
    await asyncio.sleep(0)
    return "done"


def test_work_that_ends_in_time_returns_its_result_and_leaves_nothing_behind() -> None:
    async def ask() -> None:
        deadlines = Deadlines()
        task = asyncio.current_task()
        assert task is not None
        assert await deadlines.within(SECONDS, in_time()) == "done"
        # Its timer expires while nothing waits.
        await asyncio.sleep(2 * SECONDS)
        assert not task.cancelling()
        assert await deadlines.within(SECONDS, in_time()) == "done"

    asyncio.run(ask())


def test_work_that_takes_longer_is_cancelled_where_it_waits() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def ask() -> None:
        deadlines = Deadlines()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            await deadlines.within(SECONDS, slow())
        assert loop.time() - began >= SECONDS
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling(), "it goes on as if nobody had cancelled it"
        assert await deadlines.within(SECONDS, in_time()) == "done"

    asyncio.run(ask())
    assert ended == ["cancelled"]


def test_every_wait_has_its_own_deadline_under_the_shared_timer() -> None:
    async def one(deadlines: Deadlines, after: float, over: list[tuple[float, float]]) -> None:
        await asyncio.sleep(after)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            await deadlines.within(SECONDS, forever())
        over.append((began, loop.time()))

    async def ask() -> list[tuple[float, float]]:
        deadlines = Deadlines()
        over: list[tuple[float, float]] = []
        # The last one begins after the others have ended, when no timer runs.
        await asyncio.gather(*(one(deadlines, share * SECONDS, over) for share in (0, 0, 0.3, 0.6, 3)))
        return over

    over = asyncio.run(ask())
    assert len(over) == 5
    assert all(end - began >= SECONDS for began, end in over)
    assert sorted(over) == over, "in the order in which they began"


def test_a_cancellation_by_another_task_is_passed_on() -> None:
    async def ask() -> None:
        deadlines = Deadlines()
        waiting = asyncio.create_task(deadlines.within(60, forever()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(ask())


def test_a_cancellation_while_the_deadline_passes_is_passed_on() -> None:
    async def both(deadlines: Deadlines) -> None:
        try:
            await deadlines.within(SECONDS, forever())
        except TimeoutError:
            pytest.fail("the other cancellation was swallowed")

    async def ask() -> None:
        deadlines = Deadlines()
        waiting = asyncio.create_task(both(deadlines))
        await asyncio.sleep(0)
        # Before the deadline's own cancellation, in the same turn of the loop.
        asyncio.get_running_loop().call_later(SECONDS, waiting.cancel)
        asyncio.get_running_loop().call_later(SECONDS / 2, _block, SECONDS)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(ask())


def _block(seconds: float) -> None:
    """Blocks the loop, so that all timers that expire meanwhile run in one turn."""
    time.sleep(seconds)


def test_an_error_of_the_work_is_passed_on() -> None:
    async def ask() -> None:
        deadlines = Deadlines()

        async def fail() -> None:
            await asyncio.sleep(0)
            raise ValueError("its own")

        with pytest.raises(ValueError, match="its own"):
            await deadlines.within(SECONDS, fail())
        await asyncio.sleep(2 * SECONDS)

    asyncio.run(ask())


def test_deadlines_work_with_one_loop_after_another() -> None:
    deadlines = Deadlines()

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await deadlines.within(SECONDS, forever())

    asyncio.run(ask())
    asyncio.run(ask())
