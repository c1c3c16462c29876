"""Threads for plain `def` tasks: a bounded number, and an account of those that were given up.

A thread cannot be stopped. When its attempt times out or is cancelled the thread is abandoned: its
late result is dropped, and until it ends it keeps its place among `limiter`'s, so that threads that
hang cannot pile up. The attempt's time begins when it has its place, not while it waits for one.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeVar

import trio
from attrs import Factory, define

LOGGER: Final = logging.getLogger("aiki.task")

T = TypeVar("T")


@define(eq=False)
class Threads:
    """The threads of one worker.

    Attributes:
        limiter: bounds them; an abandoned thread counts until it ends.
        abandoned: threads whose attempt was given up and that still run.

    """

    limiter: trio.CapacityLimiter
    abandoned: int = 0
    unbounded: trio.CapacityLimiter = Factory(lambda: trio.CapacityLimiter(math.inf))

    def call(self, what: str) -> ThreadCall:
        """Return the place of one attempt; `what` names it in the log."""
        return ThreadCall(self, what)


@define(eq=False)
class ThreadCall:
    """One attempt's place among the threads; a context manager around the attempt's whole time."""

    _threads: Threads
    _what: str
    _lock: threading.Lock = Factory(threading.Lock)
    _ended: bool = True
    _given_up: bool = False

    async def __aenter__(self) -> Self:
        await self._threads.limiter.acquire_on_behalf_of(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._given_up:
            self._threads.limiter.release_on_behalf_of(self)

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in a thread, with the context variables of here; abandon it if cancelled.

        Raises whatever the function raises.
        """
        token = trio.lowlevel.current_trio_token()

        def work() -> T:
            try:
                return function()
            finally:
                with self._lock:
                    self._ended = True
                    late = self._given_up
                if late:
                    self._report_late(token)

        # Past this line a cancellation can only come when the thread has been started.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._ended = False
        try:
            return await trio.to_thread.run_sync(
                work, abandon_on_cancel=True, limiter=self._threads.unbounded
            )
        except trio.Cancelled:
            self._give_up()
            raise

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = not self._ended
        if self._given_up:
            self._threads.abandoned += 1
            LOGGER.warning(
                "%s was given up but its thread cannot be stopped and goes on; %d such threads, "
                "of %d that the worker may have; let long functions call current_task().heartbeat()"
                ", which ends them",
                self._what,
                self._threads.abandoned,
                self._threads.limiter.total_tokens,
            )

    def _report_late(self, token: trio.lowlevel.TrioToken) -> None:
        """Say, from the thread, that it has ended after all."""
        try:
            token.run_sync_soon(self._returned)
        except trio.RunFinishedError:
            LOGGER.debug("%s ended after its worker", self._what)

    def _returned(self) -> None:
        self._threads.abandoned -= 1
        self._threads.limiter.release_on_behalf_of(self)
        LOGGER.warning("the thread of %s has ended; its late result is dropped", self._what)
