"""One run's updates as a stream: what is in its journal, then what happens, without a gap.

The subscription is made before the journal is read, so nothing falls between the two; what comes
twice is dropped by its seq.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.storage import Storage
from aiki_sdk import NotFound
from aiki_sdk.protocol import Outcome, Update

from ._hub import Hub
from ._subscription import SubscriberTooSlow, Subscription
from ._views import update_of


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
    _past: list[Update] = field(factory=lambda: list[Update](), init=False)
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
        while not self._ended:
            update = await self._next()
            if update is None:
                break
            if update.live and update.seq == self._after:
                return update
            if update.seq > self._after and not update.live:
                self._after = update.seq
                self._ended = update.status.terminal
                return update
            if update.status.terminal and not update.live:
                # Its reader is ahead of it: the database has lost what came in between.
                break
        raise StopAsyncIteration

    async def _next(self) -> Update | None:
        if self._past:
            await trio.lowlevel.checkpoint_if_cancelled()
            return self._past.pop()
        update: Update | None = None
        with trio.move_on_at(self._deadline):
            try:
                update = await self._subscription.next()
            except SubscriberTooSlow:
                return None
        return update

    async def _read_past(self) -> None:
        """Fold the journal, for an update carries the status after its entry."""
        state = e.RunState(self._run_id)
        past: list[Update] = []
        for entry in await self._storage.journal(self._run_id):
            state = e.evolve(state, entry)
            if entry.seq > self._after:
                past.append(update_of(state, entry, e.status_of(state)))
        if not state.seq or state.spec.namespace != self._namespace:
            message = f"run {self._run_id} does not exist in namespace {self._namespace!r}"
            raise NotFound(message)
        self._ended = state.phase.terminal and not past
        past.reverse()
        self._past = past
