"""The feed: one numbered sequence of what happens in all runs, and its readers.

Namespace-wide streams all read the same thing, so that one subscription of the hub serves them.
The last updates are kept with their numbers: a reader whose connection broke goes on behind the
number that it saw last, and misses and repeats nothing, whichever runs they were about.

Invariants:
    A reader's updates are a gapless part of the feed that passes its filter, in order.
    A bounded number of updates, of a bounded weight, waits for a reader, and is kept for those that
    come back. Who falls further behind is cut off.
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

from aiki_sdk import JsonValue, Unavailable
from aiki_sdk.protocol import Outcome, RunStatus, Update

from ._hub import Hub
from ._subscription import SubscriberTooSlow, Subscription, UpdateFilter

KEPT: Final = 10_000
"""Updates kept for readers that come back: at 1,000 a second, a broken connection of 10 s."""

KEPT_WEIGHT: Final = 32 * 1024 * 1024
"""What the kept updates may weigh together, and what may wait for one reader: about as many bytes
of payloads. Updates are shared, so that many readers of the same weigh no more than one."""

WEIGHED_MAX: Final = 1_000
"""Values of a body that are looked at to weigh it; what has more is as heavy as `HEAVY`."""

HEAVY: Final = 1024 * 1024

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
    weight: int


def weight_of(update: Update) -> int:
    """Return about how many bytes an update takes, in a time that does not grow with it."""
    weight = 500
    rest: list[JsonValue] = list((update.body or {}).values())
    looked_at = 0
    while rest:
        looked_at += 1
        if looked_at > WEIGHED_MAX:
            return weight + HEAVY
        value = rest.pop()
        if isinstance(value, str):
            weight += len(value)
        elif isinstance(value, dict):
            rest.extend(islice(value.values(), WEIGHED_MAX))
        elif isinstance(value, list):
            rest.extend(islice(value, WEIGHED_MAX))
        weight += 50
    return weight


@define(eq=False)
class FeedReader:
    """One reader's bounded view of the feed; a context manager is made of it by its owner."""

    where: FeedFilter
    buffer: int
    _feed: Feed
    waiting: deque[Numbered] = field(factory=lambda: deque[Numbered](), init=False)
    """What has happened since it joined."""
    missed: deque[Numbered] = field(factory=lambda: deque[Numbered](), init=False)
    """What had happened before, and the feed still had: not more than that, and no copies."""
    last_seqs: OrderedDict[str, int] = field(factory=lambda: OrderedDict[str, int](), init=False)
    _weight: int = field(default=0, init=False)
    _too_slow: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    _changed: trio.Event = field(factory=trio.Event, init=False)

    def offer(self, one: Numbered) -> None:
        """Take an update that passes the filter; for the feed only."""
        if self._too_slow or not self.where.selects(one.namespace, one.update):
            return
        if len(self.waiting) >= self.buffer or (self.waiting and self._weight > KEPT_WEIGHT):
            self._too_slow = True
            self.waiting.clear()
        else:
            self.waiting.append(one)
            self._weight += one.weight
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
        if self.missed:
            return _taken(self.missed, limit)
        while not self.waiting:
            if self._too_slow:
                raise SubscriberTooSlow(self.buffer, self.last_seqs)
            if self._stopped:
                raise Unavailable("the server is stopping; subscribe again to resume")
            self._changed = trio.Event()
            await self._changed.wait()
        taken = _taken(self.waiting, limit)
        self._weight -= sum(one.weight for one in taken)
        return taken

    @property
    def up_to_date(self) -> bool:
        """Whether it has read all that there is for it."""
        return not (self.missed or self.waiting or self._too_slow)

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


def _taken(queue: deque[Numbered], limit: int) -> list[Numbered]:
    return [queue.popleft() for _ in range(min(limit, len(queue)))]


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
    _kept: deque[Numbered] = field(factory=lambda: deque[Numbered](), init=False)
    _weight: int = field(default=0, init=False)
    _number: int = field(default=0, init=False)
    _readers: dict[FeedReader, None] = field(factory=lambda: dict[FeedReader, None](), init=False)
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
            self._keep_none()
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
            if reader.where.selects(one.namespace, one.update):
                reader.missed.append(one)
        return True

    def take(self, namespace: str, updates: Iterable[Update]) -> None:
        """Number updates and pass them on; for the hub only."""
        if trio.current_time() - self._unread_since > IDLE_S:
            self._leave_hub()
            return
        for update in updates:
            self._number += 1
            one = Numbered(self._number, namespace, update, weight_of(update))
            self._keep(one)
            for reader in self._readers:
                reader.offer(one)

    def _keep(self, one: Numbered) -> None:
        kept = self._kept
        kept.append(one)
        self._weight += one.weight
        while len(kept) > KEPT or (self._weight > KEPT_WEIGHT and len(kept) > 1):
            self._weight -= kept.popleft().weight

    def _keep_none(self) -> None:
        self._kept.clear()
        self._weight = 0

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
        self._keep_none()
        if tap is not None:
            tap.close()

    def _leave(self, tap: Subscription) -> None:
        self.hub.detach(tap)
