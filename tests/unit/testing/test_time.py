"""Time in the test kit: it stands still while somebody works where Trio cannot see it."""

from __future__ import annotations

import threading

import trio
from trio.testing import MockClock

from aiki_trio.testing import run
from aiki_trio.testing._time import TestTime


async def test_nothing_jumps_while_a_thread_of_trio_works(autojump_clock: MockClock) -> None:
    """The thread works until the loop has had every chance to jump."""
    release = threading.Event()

    async def let_go() -> None:
        await trio.testing.wait_all_tasks_blocked(0.02)
        release.set()

    with TestTime():
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_go)
            with trio.move_on_after(3600) as scope:
                await trio.to_thread.run_sync(release.wait)
        assert not scope.cancelled_caught
        assert trio.current_time() == began


async def test_nothing_jumps_while_time_is_held(autojump_clock: MockClock) -> None:
    release = trio.Event()

    async def let_go() -> None:
        await trio.testing.wait_all_tasks_blocked(0.02)
        release.set()

    with TestTime() as time:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(let_go)
            with trio.move_on_after(1) as scope, time.held(), time.held():
                await release.wait()
        assert not scope.cancelled_caught


async def test_time_goes_on_as_before_when_nobody_holds_it(mock_clock: MockClock) -> None:
    """Also where the clock did not jump by itself."""
    with TestTime() as time:
        threshold = mock_clock.autojump_threshold
        with time.held():
            pass
        assert mock_clock.autojump_threshold == threshold


async def test_settled_waits_for_who_holds_time(autojump_clock: MockClock) -> None:
    done: list[str] = []
    release = trio.Event()

    async def work(time: TestTime) -> None:
        with time.held():
            await release.wait()
            done.append("work")

    async def let_go() -> None:
        await trio.testing.wait_all_tasks_blocked(0.02)
        release.set()

    with TestTime() as time:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, time)
            nursery.start_soon(let_go)
            await time.settled()
            assert done == ["work"]


async def _sleep(seconds: float) -> float:
    await trio.sleep(seconds)
    return trio.current_time()


def test_run_skips_time_in_plain_functions() -> None:
    assert run(_sleep, 86_400.0) >= 86_400


async def test_run_skips_time_inside_trio_too() -> None:
    """On a clock of its own: the loop around it stands still."""
    began = trio.current_time()
    assert run(_sleep, 86_400.0) >= 86_400
    assert trio.current_time() - began < 60
