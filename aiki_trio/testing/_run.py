"""Running Trio with time that skips itself, from plain functions and from inside Trio alike."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import outcome
import trio
from trio.testing import MockClock

T = TypeVar("T")
Args = TypeVarTuple("Args")


def run(async_fn: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
    """Run an async function under Trio, on a clock that skips whatever would be waited for.

    Inside Trio it runs in a thread of its own, and the loop around it stands still meanwhile.

    Raises whatever the function raises.
    """
    if not trio.lowlevel.in_trio_run():
        return _run(async_fn, *args)
    results: list[outcome.Outcome[T]] = []
    thread = threading.Thread(
        target=lambda: results.append(outcome.capture(lambda: _run(async_fn, *args))),
        name="aiki-testing",
    )
    thread.start()
    thread.join()
    return results[0].unwrap()


def _run(async_fn: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
    return trio.run(async_fn, *args, clock=MockClock(autojump_threshold=0))
