"""Who writes in turns leaves others theirs: as long as its own where somebody writes, shorter ones else."""

import time
from itertools import count

from projections.timelines.throttle import ALONE, COMPANY_S, Pace

TURN_S = 0.3


def paused_s(pace: Pace) -> float:
    with pace:
        time.sleep(TURN_S)
    ended = time.monotonic()
    with pace:
        return time.monotonic() - ended


def test_alone_it_pauses_for_a_part_of_its_turn() -> None:
    assert ALONE * TURN_S <= paused_s(Pace(lambda: 7)) < TURN_S


def test_in_company_it_pauses_as_long_as_its_turn_took_and_for_a_while_after() -> None:
    heads = count()
    assert paused_s(Pace(lambda: next(heads))) >= TURN_S
    once = iter([0, 1])
    pace = Pace(lambda: next(once, 1))
    assert paused_s(pace) >= TURN_S
    assert COMPANY_S > 2 * TURN_S
    assert paused_s(pace) >= TURN_S


def test_in_nobodys_way_it_does_not_pause() -> None:
    assert paused_s(Pace(None)) < ALONE * TURN_S
