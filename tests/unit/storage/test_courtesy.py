"""A busy loop lets the threads that work for it have their turn."""

from __future__ import annotations

import time

import pytest
import trio

from aiki_actors.storage.sqlite import _courtesy
from aiki_actors.storage.sqlite._courtesy import PAUSE_S, Courtesy


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record pauses instead of taking them."""
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


async def test_a_busy_loop_pauses_while_a_thread_works_for_it(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_courtesy, "PATIENCE_S", 0.0)
    courtesy = Courtesy()
    await trio.lowlevel.checkpoint()
    assert pauses == []
    with courtesy.towards_threads():
        with courtesy.towards_threads():
            await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
    taken = len(pauses)
    assert taken >= 2
    assert set(pauses) == {PAUSE_S}
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    assert len(pauses) == taken


async def test_what_is_over_soon_is_not_paused_for(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_courtesy, "PATIENCE_S", 3600.0)
    with Courtesy().towards_threads():
        for _ in range(3):
            await trio.lowlevel.checkpoint()
    assert pauses == []


async def test_it_leaves_the_loop_with_the_storage(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_courtesy, "PATIENCE_S", 0.0)
    courtesy = Courtesy()
    with courtesy.towards_threads():
        await trio.lowlevel.checkpoint()
        courtesy.close()
        courtesy.close()
        taken = len(pauses)
        await trio.lowlevel.checkpoint()
    assert len(pauses) == taken


async def test_an_idle_loop_is_not_touched(
    pauses: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    with Courtesy().towards_threads():
        await trio.lowlevel.checkpoint()
        busy = len(pauses)
        await trio.sleep(10)
    # The wait itself costs no pause; only the ticks around it may.
    assert len(pauses) <= busy + 2


async def test_no_pause_is_left_behind_by_an_error(pauses: list[float]) -> None:
    courtesy = Courtesy()
    with pytest.raises(KeyError), courtesy.towards_threads():
        raise KeyError
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    assert pauses == []
