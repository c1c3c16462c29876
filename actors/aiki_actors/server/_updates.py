"""One run's updates as a stream: what is in its journal, then what happens, without a gap.

The subscription is made before the journal is read, so nothing falls between the two; what comes
twice is dropped by its seq.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.storage import Storage
from aiki_sdk import NotFound
from aiki_sdk.protocol import Outcome, Update

from ._hub import Hub
from ._subscription import SubscriberTooSlow, Subscription
from ._views import update_of

BATCH: Final = 100
"""Updates that are taken at a time, at most."""


@define(eq=False)
class RunUpdates:
    """A context manager and the iterator that it gives."""

    _storage: Storage
    _hub: Hub[Outcome]
    _namespace: str
    _run_id: str
    _after: int
    _wait_s: float | None
    _subscription: Subscription = field(init=False)
    _past: deque[Update] = field(factory=lambda: deque[Update](), init=False)
    _ready: deque[Update] = field(factory=lambda: deque[Update](), init=False)
    """What was taken in a batch and is given one at a time."""
    _journal_seq: int = field(default=0, init=False)
    """The last entry that the journal had when it was read."""
    _deadline: float = field(init=False)
    _ended: bool = field(default=False, init=False)

    async def __aenter__(self) -> Self:
        """Subscribe and read the journal."""
        self._deadline = trio.current_time() + (
            float("inf") if self._wait_s is None else self._wait_s
        )
        self._subscription = self._hub.subscribe(self._run_id)
        try:
            await self._read_past()
        except BaseException:
            self._subscription.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Watch no more."""
        self._subscription.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Return the next update; ends with the run, the time, or when reading was too slow."""
        if not self._ready:
            self._ready.extend(await self.next_batch())
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def next_batch(self) -> Sequence[Update]:
        """Wait for the next updates, some at a time; none: it has ended, as `__anext__` does.

        Cancelled, it loses nothing.
        """
        while not self._ended:
            batch = await self._next()
            if batch is None:
                break
            told = self._new(batch)
            if told:
                return told
        return ()

    async def _next(self) -> Sequence[Update] | None:
        if self._past:
            await trio.lowlevel.checkpoint_if_cancelled()
            return [self._past.popleft() for _ in range(min(BATCH, len(self._past)))]
        batch: Sequence[Update] | None = None
        with trio.move_on_at(self._deadline):
            try:
                batch = await self._subscription.next_batch(BATCH)
            except SubscriberTooSlow:
                return None
        return batch

    def _new(self, batch: Sequence[Update]) -> list[Update]:
        """Return what the reader was not told yet, and note whether it is the last."""
        told: list[Update] = []
        for update in batch:
            if update.live:
                if update.seq == self._after:
                    told.append(update)
            elif update.seq > self._after:
                self._after = update.seq
                # A run that has ended may go on: a failed one is retried, any one is forked.
                self._ended = update.status.terminal and not self._past
                told.append(update)
            elif update.status.terminal and update.seq > self._journal_seq:
                # Its reader is ahead of it: the database has lost what came in between.
                self._ended = True
        return told

    async def _read_past(self) -> None:
        """Fold the journal, for an update carries the status after its entry."""
        state = e.RunState(self._run_id)
        past = self._past
        for entry in await self._storage.journal(self._run_id):
            state = e.evolve(state, entry)
            if entry.seq > self._after:
                past.append(update_of(state, entry, e.status_of(state)))
        if not state.seq or state.spec.namespace != self._namespace:
            message = f"run {self._run_id} does not exist in namespace {self._namespace!r}"
            raise NotFound(message)
        self._journal_seq = state.seq
        self._ended = state.phase.terminal and not past
