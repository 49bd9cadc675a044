"""A throttled writer pauses between its turns: as long as a turn took while others write, less while none does."""

from itertools import count

import pytest

from projections.timelines.throttle import ACTIVE_S, IDLE_SHARE, PAUSE_S_MAX, Throttle

TURN_S = 0.3


class FakeTime:
    """A clock that only sleeping and `turn_s` move."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pause_after_a_turn(self, throttle: Throttle, turn_s: float = TURN_S) -> float:
        with throttle:
            self.now += turn_s
        self.slept.clear()
        with throttle:
            return sum(self.slept)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_while_no_other_process_writes_it_pauses_for_a_part_of_its_turn(time: FakeTime) -> None:
    throttle = Throttle(lambda: 7, time.clock, time.sleep)
    assert time.pause_after_a_turn(throttle) == pytest.approx(IDLE_SHARE * TURN_S)


def test_while_others_write_it_pauses_as_long_as_its_turn_took(time: FakeTime) -> None:
    heads = count()
    throttle = Throttle(lambda: next(heads), time.clock, time.sleep)
    assert time.pause_after_a_turn(throttle) == pytest.approx(TURN_S)
    assert time.pause_after_a_turn(throttle, 10 * PAUSE_S_MAX) == pytest.approx(PAUSE_S_MAX)


def test_for_a_while_after_others_wrote_it_expects_them_to_write_again(time: FakeTime) -> None:
    heads = iter([0, 1])
    throttle = Throttle(lambda: next(heads, 1), time.clock, time.sleep)
    assert time.pause_after_a_turn(throttle) == pytest.approx(TURN_S)
    assert time.pause_after_a_turn(throttle) == pytest.approx(TURN_S)
    time.now += ACTIVE_S
    assert time.pause_after_a_turn(throttle) == pytest.approx(IDLE_SHARE * TURN_S)


def test_a_writer_that_blocks_nothing_does_not_pause(time: FakeTime) -> None:
    assert time.pause_after_a_turn(Throttle(None, time.clock, time.sleep)) == 0


def test_by_default_it_uses_the_real_clock() -> None:
    throttle = Throttle(lambda: 7)
    for _ in range(2):
        with throttle:
            pass
