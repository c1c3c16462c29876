"""The watchdog: tells when code blocks the event loop, and where.

A thread looks at a counter that a task of the loop keeps moving. When it stands still for too long,
something in the loop's thread neither awaits nor returns; the thread logs that with the stack and,
if it is a workflow's code, with the run. It only reports: Python cannot stop such code.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import FrameType
from typing import ClassVar, Final, Never

import trio
from attrs import define, field

from aiki_actors.kernel import Actor, ActorContext, StopReason
from aiki_sdk import Run

LOGGER: Final = logging.getLogger("aiki.watchdog")

WAITING_FOR_IO: Final = "get_events"
"""Trio's function that waits for the operating system; there the loop is not blocked."""

STACK_MAX: Final = 20
"""Frames of the stack that are logged, the innermost last."""


@define(eq=False)
class Watchdog:
    """Watches the loop of the thread it was made in."""

    limit_s: float
    reports: int = field(default=0, init=False)
    _beats: int = field(default=0, init=False)
    _thread_id: int = field(factory=threading.get_ident, init=False)
    _stop: threading.Event = field(factory=threading.Event, init=False)

    async def beat(self) -> None:
        """Keep the counter moving, from within the loop."""
        while True:
            self._beats += 1
            await trio.sleep(self.limit_s / 4)

    def watch(self) -> None:
        """Look at the counter until stopped; the body of the watching thread."""
        seen, reported = -1, False
        while not self._stop.wait(self.limit_s):
            stuck = self._beats == seen
            if stuck and not reported:
                self._report()
            reported = stuck
            seen = self._beats

    def stop(self) -> None:
        """End the watching thread."""
        self._stop.set()

    def _report(self) -> None:
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if frame is None or frame.f_code.co_name == WAITING_FOR_IO:
            # The loop is idle: the machine is too busy for both threads, the code is not to blame.
            return
        self.reports += 1
        run = _run_in(frame)
        who = f"the code of {run!r}" if run is not None else "code"
        stack = "".join(traceback.format_stack(frame)[-STACK_MAX:])
        LOGGER.error(
            "%s has blocked the event loop for more than %g s; every run waits for it. Move the "
            "blocking call into a task written as plain `def`, which runs in a thread.\n%s",
            who,
            self.limit_s,
            stack,
        )


def _run_in(frame: FrameType | None) -> Run | None:
    """Find the run whose workflow function is on the stack."""
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, Run):
                return value
        frame = frame.f_back
    return None


@define(eq=False)
class WatchdogActor(Actor[Never]):
    """The watchdog's place in the tree: moves the counter and owns the thread."""

    kind: ClassVar[str] = "watchdog"
    dog: Watchdog
    _thread: threading.Thread = field(init=False)

    async def started(self, context: ActorContext[Never]) -> None:
        """Begin to watch the loop that this runs in."""
        context.start_soon(self.dog.beat)
        self._thread = threading.Thread(target=self.dog.watch, name="aiki-watchdog", daemon=True)
        self._thread.start()

    async def stopping(self, reason: StopReason) -> None:  # noqa: ARG002
        """End the watching thread."""
        self.dog.stop()
        await trio.to_thread.run_sync(self._thread.join)

    def describe(self) -> str:
        """Return how often the loop was found blocked."""
        return f"blocked {self.dog.reports} times"
