"""Time in tests: it jumps while everything waits, and stands still while somebody works unseen.

Trio's `MockClock` jumps to the next deadline when no task can run. It does not know that a thread
commits to the database, or that a plain `def` task runs: to Trio they look like waiting. So whoever
hands work out of the loop *holds* time until the answer is back.

Invariant: while anything is held the clock does not jump; what a thread does takes no time at all.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked


@define(eq=False)
class TestTime(trio.abc.Instrument):
    """The hold on the clock of this Trio run. Make it inside Trio, use it as a `with` block.

    As an instrument it watches Trio's own threads (`trio.to_thread.run_sync` with the default
    limiter), so that code under test which uses them holds time by itself.
    """

    __test__ = False  # its name begins with what pytest collects

    clock: MockClock | None = field(init=False)
    _limiter: trio.CapacityLimiter = field(init=False)
    _threshold_s: float = field(default=math.inf, init=False)
    _holds: int = field(default=0, init=False)
    _threads: bool = field(default=False, init=False)
    _free: trio.Event | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Find the clock; any other than a `MockClock` passes by itself and needs no hold."""
        clock = trio.lowlevel.current_clock()
        self.clock = clock if isinstance(clock, MockClock) else None
        self._limiter = trio.to_thread.current_default_thread_limiter()

    def __enter__(self) -> Self:
        """Begin to watch threads."""
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_error: object) -> None:
        """Watch no more."""
        trio.lowlevel.remove_instrument(self)
        if self._threads:
            self._threads = False
            self._release()

    @contextmanager
    def held(self) -> Generator[None]:
        """Let no time pass while the body runs."""
        self._hold()
        try:
            yield
        finally:
            self._release()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        """Hold time while Trio's threads work; a hook must be quick and never raise."""
        busy = self._limiter.borrowed_tokens > 0
        if busy is not self._threads:
            self._threads = busy
            (self._hold if busy else self._release)()

    async def settled(self) -> None:
        """Wait until nothing can happen any more without time passing."""
        while True:
            await wait_all_tasks_blocked()
            if not self._holds:
                return
            if self._free is None:
                self._free = trio.Event()
            await self._free.wait()

    def _hold(self) -> None:
        self._holds += 1
        if self._holds == 1 and self.clock is not None:
            self._threshold_s = self.clock.autojump_threshold
            self.clock.autojump_threshold = math.inf

    def _release(self) -> None:
        self._holds -= 1
        if self._holds:
            return
        if self.clock is not None:
            self.clock.autojump_threshold = self._threshold_s
        if self._free is not None:
            self._free.set()
            self._free = None
