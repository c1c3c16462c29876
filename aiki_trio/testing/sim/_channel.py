"""What a link is made of: one direction of it, and an answer that somebody waits for."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import trio
from attrs import define, field

from aiki_actors import engine as e

from ._chance import latency


@define(eq=False)
class Channel:
    """One direction: acts are done in order, each after its delay, and not while it is blocked."""

    rng: random.Random
    latency_s: float
    blocked: bool = False
    _acts: deque[Callable[[], None]] = field(
        factory=lambda: deque[Callable[[], None]](), init=False
    )
    _wake: trio.Event = field(factory=trio.Event, init=False)

    def put(self, act: Callable[[], None]) -> None:
        """Send something."""
        self._acts.append(act)
        self._wake.set()

    def block(self, blocked: bool) -> None:
        """Hold everything up, or let it pass again."""
        self.blocked = blocked
        self._wake.set()

    def take_all(self) -> list[Callable[[], None]]:
        """Take out what is under way."""
        acts = list(self._acts)
        self._acts.clear()
        return acts

    async def pump(self) -> None:
        """Deliver, for ever."""
        while True:
            await self._ready()
            await trio.sleep(latency(self.rng, self.latency_s))
            if self.blocked or not self._acts:
                continue
            self._acts.popleft()()

    async def _ready(self) -> None:
        while self.blocked or not self._acts:
            self._wake = trio.Event()
            await self._wake.wait()


@define(eq=False)
class Answer:
    """What a worker waits for."""

    event: trio.Event = field(factory=trio.Event)
    entries: tuple[e.Entry, ...] = ()
    error: BaseException | None = None

    def give(self, entries: tuple[e.Entry, ...] = (), error: BaseException | None = None) -> None:
        """Answer; once."""
        if not self.event.is_set():
            self.entries, self.error = entries, error
            self.event.set()

    async def wait(self) -> tuple[e.Entry, ...]:
        """Wait for it, whatever is cancelled meanwhile."""
        with trio.CancelScope(shield=True):
            await self.event.wait()
        if self.error is not None:
            raise self.error
        return self.entries
