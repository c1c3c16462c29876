"""The timers: wake each run when something of it is due, never before and hardly after.

The database knows every due time; here are only the near ones, in a heap. Run actors call `set`
and `clear` after their entries are durable. Two loops live here: one *fires* what is due, in
batches, one at a time; the other *reads ahead*, page by page, so that a timer is in the heap half a
horizon before it is due. With nothing near, neither loop does anything.

Invariants:
    The heap holds every timer of the database up to the place `_read_to`, in its order (due_at,
    run_id). Behind it the first timer is at `_far` or later.
    Firing is by the wall clock: after each sleep it is asked again whether the time has come.
    At most `timers_max` timers are kept; past it the latest are left to the database.

A timer that fires twice, or fires although its run changed, changes nothing: the run actor knows
what is due. A timer that was lost, because the run it woke failed before its entries were durable,
is found again by the sweep for overdue runs that follows every firing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ClassVar, Final, Never, Protocol

import trio
from attrs import Factory, define, field, frozen
from typing_extensions import override

from aiki_actors.engine import Micros
from aiki_actors.faults import fault_point
from aiki_actors.kernel import Actor, ActorContext
from aiki_actors.storage import DueRun
from aiki_sdk import StorageError

from ._near_timers import NearTimers, Place

logger = logging.getLogger("aiki_actors.timers")

FOREVER: Final = Micros(253_402_300_799_000_000)
"""The end of the year 9999, the last time that every database can hold."""

OVERDUE: Final = Micros(1_000_000)
"""A run that is due this long and still stands in the database was not woken, or in vain."""

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 10.0

_START: Final[Place] = (-1, "")


class DueRuns(Protocol):
    """The part of `Storage` that the timers need."""

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Return runs due before a time, in (due_at, run_id) order, from behind `after`."""
        ...


@frozen(kw_only=True)
class TimerSettings:
    """How timers are kept.

    Attributes:
        horizon: how far ahead the database is read; half of it is the least notice.
        timers_max: timers kept in memory; past it the horizon shrinks.
        page_size: timers read from the database at once.
        batch_max: runs handed over at once; the next batch waits until they were taken.
        coalesce: pause after a batch, in which further timers gather; the price is that much
            lateness at most.
        clock_check: how often the clock is looked at while waiting, since a wall clock may jump and
            Trio's does not notice a suspended machine; None if the clock is Trio's own.

    Raises:
        ValueError: a setting is not above zero, or a page is larger than what may be kept.

    """

    horizon: timedelta = timedelta(seconds=60)
    timers_max: int = 100_000
    page_size: int = 1_000
    batch_max: int = 500
    coalesce: timedelta = timedelta(milliseconds=2)
    clock_check: timedelta | None = timedelta(seconds=1)

    def __attrs_post_init__(self) -> None:
        """Refuse what could not work."""
        for name in ("horizon", "clock_check"):
            value: timedelta | None = getattr(self, name)
            if value is not None and value <= timedelta(0):
                raise ValueError(f"TimerSettings.{name} is {value!r}; it must be above zero")
        for name in ("timers_max", "page_size", "batch_max"):
            number: int = getattr(self, name)
            if number < 1:
                raise ValueError(f"TimerSettings.{name} is {number!r}; it must be at least 1")
        if self.coalesce < timedelta(0):
            raise ValueError(f"TimerSettings.coalesce is {self.coalesce!r}; it must not be < 0")


@define(eq=False)
class _Alarm:
    """Lets one task sleep until it is rung or a time has passed."""

    _event: trio.Event = Factory(trio.Event)

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._event.wait()
        self._event = trio.Event()


def _micros(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


@define(eq=False)
class Timers:
    """Near timers in a heap, far ones in the database.

    Attributes:
        settings: how they are kept.
        fired: how many runs were handed over so far.

    """

    _storage: DueRuns
    _now: Callable[[], Micros]
    _elapse: Callable[[list[str]], Awaitable[None]]
    settings: TimerSettings = TimerSettings()
    fired: int = field(default=0, init=False)
    _near: NearTimers = field(factory=NearTimers, init=False)
    _read_to: Place = field(default=_START, init=False)
    _far: Micros = field(default=Micros(0), init=False)
    _full: bool = field(default=False, init=False)
    """Reading ahead stopped for want of room; it goes on when a quarter is left."""
    _sweep_at: Micros = field(default=FOREVER, init=False)
    _awaited: Micros = field(default=FOREVER, init=False)
    """What the firing loop sleeps for; a timer that is due earlier rings it."""
    _touched: dict[str, Micros | None] | None = field(default=None, init=False)
    """While a page is being read: what was set (or cleared: None) since, for the page is older."""
    _firing: _Alarm = field(factory=_Alarm, init=False)
    _loading: _Alarm = field(factory=_Alarm, init=False)
    _horizon: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Take the horizon in the clock's unit."""
        self._horizon = _micros(self.settings.horizon)

    def __len__(self) -> int:
        return len(self._near)

    def set(self, run_id: str, due_at: Micros) -> None:
        """Note when the run is due next, in place of what was noted; it must be durable already.

        A far time is left to the database. Never blocks.
        """
        if self._touched is not None:
            self._touched[run_id] = due_at
        self._place(run_id, due_at)

    def clear(self, run_id: str) -> None:
        """Note that nothing of the run is due by itself any more."""
        if self._touched is not None:
            self._touched[run_id] = None
        self._drop(run_id)

    def reset(self) -> None:
        """Trust nothing but the database: read it from the beginning, on top of what is here."""
        self._read_to, self._far, self._full = _START, Micros(0), False
        self._sweep_at, self._touched = FOREVER, None
        self._loading.ring()

    def describe(self) -> str:
        """Say in one line how many timers are near and what was fired."""
        return f"{len(self._near)} near timers{' (full)' if self._full else ''}, {self.fired} fired"

    # --- firing ---

    async def keep_firing(self) -> None:
        """Fire what is due, for ever; one task at a time runs this."""
        batch_max, coalesce_s = self.settings.batch_max, self.settings.coalesce.total_seconds()
        while True:
            first = self._near.first()
            now = self._now()
            if first is None or first > now:
                self._awaited = FOREVER if first is None else first
                await self._firing.wait(math.inf if first is None else self._nap(first - now))
                continue
            # Nobody need ring until we sleep again, for we look before we do.
            self._awaited = Micros(0)
            batch = self._near.pop_due(now, batch_max)
            await self._hand_over(batch)
            if self._full and self._has_room():
                self._loading.ring()
            if len(batch) < batch_max:
                await trio.sleep(coalesce_s)
            else:
                await trio.lowlevel.checkpoint()

    async def _hand_over(self, batch: list[str]) -> None:
        if self._touched:
            for run_id in batch:
                self._touched.pop(run_id, None)
        try:
            fault_point("timer.taken")
            await self._elapse(batch)
        except StorageError as error:
            logger.warning("%d due runs could not be woken, trying again: %s", len(batch), error)
            again = Micros(self._now() + round(BACKOFF_FIRST_S * 1e6))
            for run_id in batch:
                if run_id not in self._near:
                    self._near.put(run_id, again)
            return
        self.fired += len(batch)
        if self._sweep_at == FOREVER:
            # Late enough that what was handed over just now, in vain, counts as overdue by then.
            self._sweep_at = Micros(self._now() + max(self._horizon // 2, 2 * OVERDUE))
            self._loading.ring()

    def _nap(self, micros: int) -> float:
        """Return how long to sleep, in seconds, before looking at the clock again."""
        seconds = max(micros, 1) / 1e6
        check = self.settings.clock_check
        return seconds if check is None else min(seconds, check.total_seconds())

    # --- what is near ---

    def _place(self, run_id: str, due_at: Micros) -> None:
        """Put a timer into the heap if it belongs there, else note that there is one far away."""
        place: Place = (due_at, run_id)
        if place > self._read_to:
            if due_at >= self._far or due_at > self._now() + self._horizon:
                self._drop(run_id)
                if due_at < self._far:
                    self._far = due_at
                    self._loading.ring()
                return
            # The database has nothing between `_read_to` and `_far`, except for this.
            self._read_to = place
        self._near.put(run_id, due_at)
        if len(self._near) > self.settings.timers_max:
            self._shrink()
        self._ring_if_earlier()

    def _drop(self, run_id: str) -> None:
        if self._near.drop(run_id) and self._full and self._has_room():
            self._loading.ring()

    def _shrink(self) -> None:
        """Leave the later half of the timers to the database."""
        if not self._full:
            logger.warning(
                "more than %d timers are due within %s; the later ones are read again when needed",
                self.settings.timers_max,
                self.settings.horizon,
            )
        self._stop_reading(self._near.keep_first(max(1, self.settings.timers_max // 2)))

    def _stop_reading(self, place: Place) -> None:
        self._read_to = place
        self._far = Micros(place[0])
        self._full = True

    def _has_room(self) -> bool:
        return 4 * len(self._near) <= self.settings.timers_max

    def _ring_if_earlier(self) -> None:
        first = self._near.first()
        if first is not None and first < self._awaited:
            self._awaited = first
            self._firing.ring()

    # --- reading ahead ---

    async def keep_loading(self) -> None:
        """Read ahead, for ever; one task at a time runs this. Database errors are retried."""
        failures = 0
        while True:
            wait = min(self._until_read(), self._sweep_at - self._now())
            if wait > 0:
                await self._loading.wait(math.inf if wait == math.inf else self._nap(int(wait)))
                continue
            try:
                if self._until_read() <= 0:
                    await self._read_ahead()
                if self._sweep_at <= self._now():
                    await self._sweep()
            except StorageError as error:
                pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(failures, 16))
                failures += 1
                logger.warning("cannot read due runs, next try in %g s: %s", pause_s, error)
                await trio.sleep(pause_s)
            else:
                failures = 0

    def _until_read(self) -> float:
        """Return the microseconds until the next read; infinite: not before the alarm rings."""
        if self._full:
            return 0 if self._has_room() else math.inf
        if self._far == FOREVER:
            return math.inf
        return self._far - self._horizon // 2 - self._now()

    async def _read_ahead(self) -> None:
        until = Micros(self._now() + self._horizon)
        while self._read_to < (until, ""):
            limit = min(self.settings.page_size, self.settings.timers_max - len(self._near))
            if limit <= 0:
                self._stop_reading(self._read_to)
                return
            page, touched = await self._read(before=until, limit=limit, after=self._read_to)
            self._take_in(page, touched)
            end: Place = (page[-1].due_at, page[-1].run_id) if len(page) == limit else (until, "")
            self._read_to = max(self._read_to, end)
            self._replay(touched)
        page, touched = await self._read(before=FOREVER, limit=1, after=self._read_to)
        self._far = page[0].due_at if page else FOREVER
        self._full = False
        self._replay(touched)

    async def _sweep(self) -> None:
        """Wake again whatever should have been woken a while ago."""
        self._sweep_at = FOREVER
        before = Micros(self._now() - OVERDUE)
        after = _START
        while (limit := min(self.settings.page_size, self.settings.timers_max - len(self))) > 0:
            try:
                page, touched = await self._read(before=before, limit=limit, after=after)
            except StorageError:
                self._sweep_at = self._now()
                raise
            self._take_in(page, touched)
            if len(page) < limit:
                return
            after = (page[-1].due_at, page[-1].run_id)

    async def _read(
        self, *, before: Micros, limit: int, after: Place
    ) -> tuple[list[DueRun], dict[str, Micros | None]]:
        """Read a page; returns with it what was set and cleared meanwhile."""
        behind = None if after == _START else DueRun(after[1], Micros(after[0]))
        touched: dict[str, Micros | None] = {}
        self._touched = touched
        try:
            page = await self._storage.due(before=before, limit=limit, after=behind)
        finally:
            self._touched = None
        return page, touched

    def _take_in(self, page: list[DueRun], touched: dict[str, Micros | None]) -> None:
        for row in page:
            if row.run_id not in touched:
                self._near.put(row.run_id, row.due_at)
        self._ring_if_earlier()

    def _replay(self, touched: dict[str, Micros | None]) -> None:
        """Set again what was set while we read: it may be near by what we know now."""
        for run_id, due_at in touched.items():
            if due_at is not None:
                self._place(run_id, due_at)


@define(eq=False)
class TimersActor(Actor[Never]):
    """The timers' place in the tree; a restart reads the database afresh."""

    kind: ClassVar[str] = "timers"
    timers: Timers

    @override
    async def started(self, context: ActorContext[Never]) -> None:
        self.timers.reset()
        context.start_soon(self.timers.keep_firing)
        context.start_soon(self.timers.keep_loading)

    @override
    def describe(self) -> str:
        return self.timers.describe()
