"""The feed: one numbered sequence of what happens in all runs, and its readers.

Namespace-wide streams all read the same thing, so that one subscription of the hub serves them.
The last updates are kept with their numbers: a reader whose connection broke goes on behind the
number that it saw last, and misses and repeats nothing, whichever runs they were about.

Invariants:
    A reader's updates are a gapless part of the feed that passes its filter, in order.
    At most `READER_MAX` updates wait for a reader; one more, and it is cut off.
    While nobody has read for `IDLE_S`, the feed costs nothing: it leaves the hub.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

import trio
from attrs import define, field, frozen
from typing_extensions import override

from aiki_sdk import Unavailable
from aiki_sdk.protocol import Outcome, RunStatus, Update

from ._hub import Hub
from ._subscription import SubscriberTooSlow, Subscription, UpdateFilter

KEPT: Final = 10_000
"""Updates kept for readers that come back: at 1,000 a second, a broken connection of 10 s."""

IDLE_S: Final = 60.0
"""How long the feed goes on without readers, for those that come back."""


@frozen
class FeedFilter:
    """Which updates of a namespace a reader wants; what is empty does not restrict."""

    namespace: str
    runs: frozenset[str] = frozenset()
    workflows: frozenset[str] = frozenset()
    statuses: frozenset[RunStatus] = frozenset()

    def selects(self, namespace: str, update: Update) -> bool:
        """Tell whether the reader wants this update of a run in `namespace`."""
        return (
            namespace == self.namespace
            and (not self.runs or update.run_id in self.runs)
            and (not self.workflows or update.workflow in self.workflows)
            and (not self.statuses or update.status in self.statuses)
        )


@frozen
class Numbered:
    """An update and its number in the feed."""

    number: int
    namespace: str
    update: Update


@define(eq=False)
class FeedReader:
    """One reader's bounded view of the feed; a context manager is made of it by its owner."""

    where: FeedFilter
    buffer: int
    _feed: Feed
    waiting: deque[Numbered] = field(factory=lambda: deque[Numbered](), init=False)
    last_seqs: OrderedDict[str, int] = field(
        factory=lambda: OrderedDict[str, int](), init=False
    )
    _too_slow: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    _changed: trio.Event = field(factory=trio.Event, init=False)

    def offer(self, one: Numbered) -> None:
        """Take an update that passes the filter; for the feed only."""
        if self._too_slow or not self.where.selects(one.namespace, one.update):
            return
        if len(self.waiting) >= self.buffer:
            self._too_slow = True
            self.waiting.clear()
        else:
            self.waiting.append(one)
        self._changed.set()

    def stop(self) -> None:
        """End after what waits; for the feed only."""
        self._stopped = True
        self._changed.set()

    async def next_batch(self, limit: int = 100) -> list[Numbered]:
        """Wait for updates and return up to `limit`; never empty. Cancelled, it loses nothing.

        Raises:
            SubscriberTooSlow: more than the buffer waited.
            Unavailable: the server is stopping.
        """
        await trio.lowlevel.checkpoint()
        while not self.waiting:
            if self._too_slow:
                raise SubscriberTooSlow(self.buffer, self.last_seqs)
            if self._stopped:
                raise Unavailable("the server is stopping; subscribe again to resume")
            self._changed = trio.Event()
            await self._changed.wait()
        count = min(limit, len(self.waiting))
        return [self.waiting.popleft() for _ in range(count)]

    def note(self, update: Update) -> None:
        """Remember how far the reader is with a run."""
        last_seqs = self.last_seqs
        last_seqs[update.run_id] = update.seq
        last_seqs.move_to_end(update.run_id)
        if len(last_seqs) > self.buffer:
            last_seqs.popitem(last=False)

    def close(self) -> None:
        """Read no more; closing again does nothing."""
        self._feed.forget(self)


@define(eq=False)
class _Tap(Subscription):
    """The feed's place in the hub: passes on at once, so that it is never behind."""

    feed: Feed

    @override
    def offer(self, namespace: str, updates: Iterable[Update]) -> bool:
        self.feed.take(namespace, updates)
        return True

    @override
    def stop(self) -> None:
        self.feed.stop()


@define(eq=False)
class Feed:
    """All readers of one hub; made once, with a boot id that no other process has had."""

    hub: Hub[Outcome]
    boot_id: str
    _kept: deque[Numbered] = field(factory=lambda: deque[Numbered](maxlen=KEPT), init=False)
    _number: int = field(default=0, init=False)
    _readers: dict[FeedReader, None] = field(
        factory=lambda: dict[FeedReader, None](), init=False
    )
    _tap: _Tap | None = field(default=None, init=False)
    _unread_since: float = field(default=math.inf, init=False)
    _stopped: bool = field(default=False, init=False)

    def position(self, number: int | None = None) -> str:
        """Return the position behind a number; None: behind all that has happened."""
        return f"{self.boot_id}-{self._number if number is None else number}"

    def reader(self, where: FeedFilter, buffer: int) -> FeedReader:
        """Give a reader everything from now on that passes its filter.

        Raises:
            Unavailable: the hub has stopped.
        """
        if self._stopped:
            raise Unavailable("the server is stopping; try again")
        if self._tap is None:
            tap = _Tap(self._leave, None, UpdateFilter(), 1, self)
            self.hub.attach(tap)
            self._tap = tap
            # What happened in between is not known here: older positions lead nowhere.
            self._kept.clear()
        reader = FeedReader(where, buffer, self)
        self._readers[reader] = None
        self._unread_since = math.inf
        return reader

    def rewind(self, reader: FeedReader, position: str) -> bool:
        """Give a new reader what came behind a position; False: that is not known any more."""
        boot_id, _, text = position.rpartition("-")
        if boot_id != self.boot_id or not (text.isascii() and text.isdecimal()) or len(text) > 18:
            return False
        missing = self._number - int(text)
        if not 0 <= missing <= len(self._kept):
            return False
        for one in islice(self._kept, len(self._kept) - missing, None):
            reader.offer(one)
        return True

    def take(self, namespace: str, updates: Iterable[Update]) -> None:
        """Number updates and pass them on; for the hub only."""
        if trio.current_time() - self._unread_since > IDLE_S:
            self._leave_hub()
            return
        for update in updates:
            self._number += 1
            one = Numbered(self._number, namespace, update)
            self._kept.append(one)
            for reader in self._readers:
                reader.offer(one)

    def forget(self, reader: FeedReader) -> None:
        """Drop a reader; for itself only."""
        self._readers.pop(reader, None)
        if not self._readers:
            self._unread_since = trio.current_time()

    def stop(self) -> None:
        """End every reader; for the hub only."""
        self._stopped = True
        for reader in self._readers:
            reader.stop()

    def _leave_hub(self) -> None:
        tap, self._tap = self._tap, None
        # A number of its own, so that no position from before leads into what comes after.
        self._number += 1
        self._kept.clear()
        if tap is not None:
            tap.close()

    def _leave(self, tap: Subscription) -> None:
        self.hub.detach(tap)
