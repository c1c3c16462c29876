"""Letting the threads have their turn while Trio's loop is busy.

A thread that comes back from the disk needs the interpreter's lock. A loop that always has
something to run gives it back at every look at its sockets, but takes it again before the thread
has woken up, and so early that the interpreter's own switch interval never counts to its end: the
thread can starve for seconds (measured: 14 s for one append beside a loop with ticks of 1 ms,
9 ms at most with this). So while a thread works for us, a busy loop pauses for a moment at the end
of a tick, long enough for a thread to wake up; not at each tick, for a commit beside a loop with
little to do is over sooner than a few pauses.

An idle loop waits anyway and is not touched; nor is one for which no thread works.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import trio

PAUSE_S: Final = 5e-6
"""Asks for 5 µs; the system's timers make it some 60 µs. A thread needs 5 to 50 µs to wake up."""

PATIENCE_S: Final = 4e-4
"""So long a thread is at work, or the last pause ago, before a busy tick pauses."""


class Courtesy(trio.abc.Instrument):
    """Pauses a busy loop for the threads that work for it. Belongs to Trio's thread."""

    def __init__(self) -> None:
        """Start with no thread at work."""
        self._at_work = 0
        self._since_s = 0.0
        self._installed = False

    def begin(self) -> None:
        """Pause at busy ticks from now on: a thread works for us."""
        if self._at_work == 0:
            self._since_s = time.perf_counter()
            if not self._installed:
                # Installing takes longer than all its ticks: it stays until `close`.
                self._installed = True
                trio.lowlevel.add_instrument(self)
        self._at_work += 1

    def end(self) -> None:
        """Pause no more: what was begun has its answer."""
        self._at_work -= 1

    @contextmanager
    def towards_threads(self) -> Generator[None, None, None]:
        """Pause at busy ticks within the block."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def close(self) -> None:
        """Look at the loop's ticks no more; closing again does nothing."""
        if self._installed:
            self._installed = False
            trio.lowlevel.remove_instrument(self)

    def after_io_wait(self, timeout: float) -> None:
        """Pause if the loop had something to run and so did not wait."""
        if timeout == 0 and self._at_work and time.perf_counter() - self._since_s >= PATIENCE_S:
            time.sleep(PAUSE_S)
            self._since_s = time.perf_counter()
