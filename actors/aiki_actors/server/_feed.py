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
from collections import deque
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

BATCH: Final = 200
"""Updates that are read at once."""

LOOK_EVERY: Final = 50
"""So many updates of a track are between two looks at how far behind its readers are."""


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
    """An update, its number in the feed, and the position behind it, as streams tell it."""

    number: int
    namespace: str
    update: Update
    weight: int
    position: str


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
class _Place:
    """A place in a track: behind an update, or before the first.

    Attributes:
        count: how many updates the track had up to here.
        weight: what they weighed together.
        next: the update that follows. What all readers have passed is held by nobody, and is gone.
    """

    count: int = 0
    weight: int = 0
    next: _Link | None = field(default=None, init=False)


@define(eq=False)
class _Link(_Place):
    """One update of a track."""

    one: Numbered = field(kw_only=True)


@define(eq=False)
class _Track:
    """What passes one filter, kept once for all readers that have it.

    A reader is a place in it: however many read the same, an update costs one step here, and
    waking those that have nothing else to read.
    """

    where: FeedFilter
    last: _Place = field(factory=_Place, init=False)
    readers: dict[FeedReader, None] = field(factory=lambda: dict[FeedReader, None](), init=False)
    idle: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    """Readers that have nothing to read."""
    gathering: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    """Readers that let more come together."""
    _looked_at: int = field(default=0, init=False)
    """The weight at the last look at how far behind readers are."""

    def add(self, one: Numbered) -> None:
        """Add an update that passes the filter."""
        before = self.last
        last = _Link(before.count + 1, before.weight + one.weight, one=one)
        self.last = before.next = last
        if self.idle:
            self.idle.unpark_all()
        if last.count % LOOK_EVERY == 0 or last.weight - self._looked_at > HEAVY:
            self._looked_at = last.weight
            self.gathering.unpark_all()
            self.let_go_of_the_slow()

    def let_go_of_the_slow(self) -> None:
        """Hold nothing any more for readers that are too far behind."""
        for reader in self.readers:
            reader.check()

    def wake(self) -> None:
        """Let every reader look again."""
        self.idle.unpark_all()
        self.gathering.unpark_all()


@define(eq=False)
class FeedReader:
    """One reader's bounded view of the feed; a context manager is made of it by its owner."""

    where: FeedFilter
    buffer: int
    _feed: Feed
    _track: _Track
    missed: deque[Numbered] = field(factory=lambda: deque[Numbered](), init=False)
    """What had happened before it joined, and the feed still had: no more than that, no copies."""
    last_seqs: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)
    _place: _Place | None = field(init=False)
    """The last update that was read; None: it is too slow, and nothing is held for it."""
    _gave_at: float = field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._place = self._track.last
        self._track.readers[self] = None

    @property
    def waiting(self) -> int:
        """How many updates have happened since it joined that it has not read."""
        return 0 if self._place is None else self._track.last.count - self._place.count

    def check(self) -> None:
        """Give up what waits if it is too much; for the feed and itself only."""
        place, last = self._place, self._track.last
        if place is not None and (
            last.count - place.count > self.buffer
            # One update may be as heavy as it likes.
            or (last.weight - place.weight > KEPT_WEIGHT and last.count - place.count > 1)
        ):
            self._place = None

    async def next_batch(self, limit: int = BATCH, gather_s: float = 0.0) -> list[Numbered]:
        """Wait for updates and return up to `limit`; never empty. Cancelled, it loses nothing.

        Args:
            limit: how many at most.
            gather_s: how long after the batch before at the earliest, unless so much comes that it
                would be too much; what comes meanwhile comes together.

        Raises:
            SubscriberTooSlow: more than the buffer waited.
            Unavailable: the server is stopping.
        """
        await trio.lowlevel.checkpoint()
        if self.missed:
            return [self.missed.popleft() for _ in range(min(limit, len(self.missed)))]
        while not self._readable():
            await self._track.idle.park()
        await self._gather(limit, self._gave_at + gather_s)
        self._readable()
        # No checkpoint from here on: what is passed reaches the reader.
        taken: list[Numbered] = []
        while len(taken) < limit and self._place is not None and self._place.next is not None:
            link = self._place = self._place.next
            taken.append(link.one)
        self._gave_at = trio.current_time()
        return taken

    def _readable(self) -> bool:
        """Tell whether there is something to read.

        Raises:
            SubscriberTooSlow: too much was there.
            Unavailable: there will be nothing any more.
        """
        self.check()
        if self._place is None:
            raise SubscriberTooSlow(self.buffer, self.last_seqs)
        if self._place.next is not None:
            return True
        if self._feed.stopped:
            raise Unavailable("the server is stopping; subscribe again to resume")
        return False

    async def _gather(self, limit: int, until: float) -> None:
        """Let more come together, but not so much that it would be too much before the next look.

        A reader of few updates at a time has no room for that, and is given them as they come.
        """
        enough = min(limit, self.buffer - 2 * LOOK_EVERY)
        if until <= trio.current_time():
            return
        with trio.CancelScope(deadline=until):
            while self._may_gather(enough):
                await self._track.gathering.park()

    def _may_gather(self, enough: int) -> bool:
        place = self._place
        if place is None or self._feed.stopped:
            return False
        last = self._track.last
        return last.count - place.count < enough and last.weight - place.weight < KEPT_WEIGHT // 2

    @property
    def up_to_date(self) -> bool:
        """Whether it has read all that there is for it."""
        return not self.missed and self._place is not None and self._place.next is None

    def note(self, update: Update) -> None:
        """Remember how far the reader is with a run."""
        last_seqs = self.last_seqs
        last_seqs.pop(update.run_id, None)  # so that it becomes the last one
        last_seqs[update.run_id] = update.seq
        if len(last_seqs) > self.buffer:
            del last_seqs[next(iter(last_seqs))]

    def close(self) -> None:
        """Read no more; closing again does nothing."""
        self._place = None
        self._feed.forget(self, self._track)


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
    _tracks: dict[FeedFilter, _Track] = field(
        factory=lambda: dict[FeedFilter, _Track](), init=False
    )
    _tap: _Tap | None = field(default=None, init=False)
    _unread_since: float = field(default=math.inf, init=False)
    stopped: bool = field(default=False, init=False)

    def position(self) -> str:
        """Return the position behind all that has happened."""
        return f"{self.boot_id}-{self._number}"

    def reader(self, where: FeedFilter, buffer: int) -> FeedReader:
        """Give a reader everything from now on that passes its filter.

        Raises:
            Unavailable: the hub has stopped.
        """
        if self.stopped:
            raise Unavailable("the server is stopping; try again")
        if self._tap is None:
            tap = _Tap(self._leave, None, UpdateFilter(), 1, self)
            self.hub.attach(tap)
            self._tap = tap
            # What happened in between is not known here: older positions lead nowhere.
            self._keep_none()
        track = self._tracks.get(where)
        if track is None:
            track = self._tracks[where] = _Track(where)
        self._unread_since = math.inf
        return FeedReader(where, buffer, self, track)

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
            one = Numbered(self._number, namespace, update, weight_of(update), self.position())
            self._keep(one)
            for track in self._tracks.values():
                if track.where.selects(namespace, update):
                    track.add(one)

    def _keep(self, one: Numbered) -> None:
        kept = self._kept
        kept.append(one)
        self._weight += one.weight
        while len(kept) > KEPT or (self._weight > KEPT_WEIGHT and len(kept) > 1):
            self._weight -= kept.popleft().weight

    def _keep_none(self) -> None:
        self._kept.clear()
        self._weight = 0

    def forget(self, reader: FeedReader, track: _Track) -> None:
        """Drop a reader; for itself only."""
        if reader not in track.readers:
            return
        del track.readers[reader]
        if not track.readers:
            del self._tracks[track.where]
        if not self._tracks:
            self._unread_since = trio.current_time()

    def stop(self) -> None:
        """End every reader; for the hub only."""
        self.stopped = True
        for track in self._tracks.values():
            track.wake()

    def _leave_hub(self) -> None:
        tap, self._tap = self._tap, None
        # A number of its own, so that no position from before leads into what comes after.
        self._number += 1
        self._keep_none()
        if tap is not None:
            tap.close()

    def _leave(self, tap: Subscription) -> None:
        self.hub.detach(tap)
