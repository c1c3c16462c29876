"""Steady load with a fault once in a while, and a sample of what bears it at intervals.

The load has a rate, not a speed: each kind of run is started in its turn, so many a second, and
waited for. At most `live_max` are under way; where the machine is too busy for the rate the load
keeps back, so that what is measured does not depend on other programs. Faults take turns as well:
the worker is killed and replaced, the database is locked by another connection, running cases are
cancelled; where server and workers are processes, a worker is frozen too. Failing tasks, retries,
timeouts and cancelled trees are part of the load.

Ended runs are kept for seconds, so that the database is flat when deletion keeps up.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Final, TypeVar

import trio
from attrs import Factory, define, frozen

from aiki_actors.engine import EngineLimits
from aiki_actors.server import KeeperSettings
from aiki_actors.storage import SqliteSettings, open_sqlite
from aiki_actors.worker import WorkerSettings
from aiki_sdk import (
    AikiError,
    NotFound,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    RunHandle,
)
from aiki_sdk.client import StartKwargs
from aiki_sdk.protocol import RunStatus
from aiki_trio import RuntimeSettings, open_runtime
from tests.chaos.checkers import (
    claims_follow_each_other,
    everything_has_ended_or_waits,
    journals_are_legal,
    read_world,
)
from tests.chaos.workload import KINDS, WORKFLOWS, Kind, item

from .processes import open_apart
from .samples import EMBEDDED, Series
from .subject import Embedded, Subject

T = TypeVar("T")

SEE_END_S: Final = 60.0
AGAIN_S: Final = 0.05
MISSING_MAX_S: Final = 10.0

SETTINGS: Final = RuntimeSettings(
    limits=EngineLimits(claims_lost_max=10_000),
    worker=WorkerSettings(runs_max=50, warm_max=50, shutdown_grace_s=5.0),
    keeper=KeeperSettings(sweep_s=0.5, retention=timedelta(seconds=8)),
    sqlite=SqliteSettings(synchronous="normal", busy_timeout_s=0.2, wal_pages_max=1_000),
)


@frozen(kw_only=True)
class Plan:
    """How long and how hard.

    Attributes:
        seconds: how long the load lasts.
        rate: cases started a second.
        live_max: cases under way at the same time.
        fault_every_s: seconds between two faults.
        samples: how many samples are taken.
        seed: of the choices.

    """

    seconds: float
    rate: float = 15.0
    live_max: int = 40
    fault_every_s: float = 20.0
    samples: int = 300
    seed: str = "1"


@define(eq=False)
class Recording:
    """What was measured: seconds since the beginning, and a value of each column for each."""

    series: Sequence[Series] = EMBEDDED
    times: list[float] = Factory(lambda: list[float]())
    columns: dict[str, list[float]] = Factory(lambda: dict[str, list[float]]())
    marks: list[tuple[float, str]] = Factory(lambda: list[tuple[float, str]]())
    problems: list[str] = Factory(lambda: list[str]())

    def take(self, time_s: float, figures: dict[str, float]) -> None:
        """Add a sample."""
        self.times.append(time_s)
        for name, value in figures.items():
            self.columns.setdefault(name, []).append(value)


@define(eq=False)
class Soak:
    """One soak, while it runs.

    Attributes:
        live: handles of the cases that are under way.
        cancelled: runs that a fault cancelled.

    """

    plan: Plan
    subject: Subject
    recording: Recording
    chance: Random
    began: float = Factory(time.monotonic)
    ended: int = 0
    slowest_ms: float = 0.0
    live: dict[str, RunHandle[object]] = Factory(lambda: dict[str, RunHandle[object]]())
    cancelled: set[str] = Factory(lambda: set[str]())

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.began

    async def run(self) -> None:
        """Load, disturb and sample; returns when every case has ended and nothing lives."""
        left_out = self.subject.left_out
        kinds = [kind for kind in KINDS.values() if not kind.stays and kind.name not in left_out]
        async with trio.open_nursery() as background:
            background.start_soon(self._sample)
            background.start_soon(self._disturb)
            async with trio.open_nursery() as cases:
                number = 0
                room = trio.Semaphore(self.plan.live_max)
                while self.now() < self.plan.seconds:
                    await room.acquire()
                    cases.start_soon(self._play, room, kinds[number % len(kinds)], number)
                    number += 1
                    await trio.sleep(max(0.0, number / self.plan.rate - self.now()))
            background.cancel_scope.cancel()
        with trio.move_on_after(SEE_END_S):
            # Nobody tells when nothing is left to be done, so it is looked for.
            while not await self.subject.idle():  # noqa: ASYNC110
                await trio.sleep(0.05)

    # --- the load -----------------------------------------------------------------------------

    async def _play(self, room: trio.Semaphore, kind: Kind, number: int) -> None:
        try:
            await self._case(kind, number)
        finally:
            room.release()

    async def _case(self, kind: Kind, number: int) -> None:
        """Play one case and see how it ends."""
        began = time.monotonic()
        reference = f"{kind.name}-{number}"
        options: StartKwargs = {**kind.options, "reference_id": reference}
        starter = self.subject.client.options(**options)
        handle = await insist(lambda: starter.start(kind.workflow, *kind.args(number)))
        self.live[handle.id] = handle
        try:
            for place, data in enumerate(kind.items(number)):
                await self._send(handle, data, f"{reference}/{place}")
            if kind.cancelled:
                await trio.sleep(0.1)
                await insist(handle.cancel)
            await self._see_end(handle, kind)
        except AikiError as error:
            if handle.id not in self.cancelled:
                self.recording.problems.append(f"{handle.id} ({kind.name}): {error!r}")
        finally:
            del self.live[handle.id]
        self.ended += 1
        self.slowest_ms = max(self.slowest_ms, (time.monotonic() - began) * 1e3)

    async def _send(self, handle: RunHandle[object], data: int, reference: str) -> None:
        await insist(lambda: handle.send(item, data, reference_id=reference))

    async def _see_end(self, handle: RunHandle[object], kind: Kind) -> None:
        """See the end.

        Raises:
            AikiError: it did not end in time, or not as its kind does.

        """
        try:
            await insist(lambda: handle.result(SEE_END_S))
        except RunCancelled:
            if not kind.cancelled:
                raise
        except RunFailed:
            if kind.status is not RunStatus.FAILED:
                raise

    # --- the faults ---------------------------------------------------------------------------

    async def _disturb(self) -> None:
        """Do something bad at intervals, in turn."""
        faults = (*self.subject.faults, self._cancel_some)
        number = 0
        while True:
            await trio.sleep(self.plan.fault_every_s * self.chance.uniform(0.7, 1.3))
            fault = faults[number % len(faults)]
            number += 1
            self.recording.marks.append((self.now(), fault.__name__.strip("_").replace("_", " ")))
            await fault()

    async def _cancel_some(self) -> None:
        """Cancel half of what is under way."""
        for handle in list(self.live.values())[::2]:
            self.cancelled.add(handle.id)
            with suppress(AikiError):  # It may have ended meanwhile.
                await handle.cancel("soak")

    # --- the samples --------------------------------------------------------------------------

    async def _sample(self) -> None:
        """Measure at intervals, from the first moment on."""
        every_s = self.plan.seconds / self.plan.samples
        while True:
            gc.collect()
            figures = {
                **await insist(self.subject.figures),
                "ended": float(self.ended),
                "slowest": self.slowest_ms,
            }
            self.slowest_ms = 0.0
            self.recording.take(self.now(), figures)
            await trio.sleep(every_s)


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again as long as the answer is an error that may pass."""
    missing_s = 0.0
    while True:
        try:
            return await ask()
        except NotFound:
            # The run goes on as another, whose creation was refused (the database was locked) and
            # is owed: it is there after the next sweep, or this does not end in time.
            missing_s += AGAIN_S
            if missing_s > MISSING_MAX_S:
                raise
        except AikiError as error:
            if not error.retryable or isinstance(error, ResultTimeout):
                raise
        await trio.sleep(AGAIN_S)


async def soak(plan: Plan, database: Path, processes: int = 0) -> Recording:
    """Run a soak on a new database, and look at what is left in it.

    Args:
        plan: how long and how hard.
        database: the file.
        processes: how many workers, each a process of its own, as the server is one; 0: all of it
            in this process.

    """
    recording = Recording()
    async with _opened(database, processes) as subject:
        recording.series = subject.series
        await Soak(plan, subject, recording, Random(plan.seed)).run()
    async with open_sqlite(database, SETTINGS.sqlite) as storage:
        world = await read_world(storage, (), ())
    for check in (journals_are_legal, claims_follow_each_other, everything_has_ended_or_waits):
        recording.problems += check(world)
    return recording


@asynccontextmanager
async def _opened(database: Path, processes: int) -> AsyncGenerator[Subject]:
    if processes:
        async with open_apart(database, processes) as apart:
            yield apart
        return
    url = f"sqlite:///{database}"
    async with open_runtime(url, workflows=WORKFLOWS, settings=SETTINGS) as runtime:
        yield Embedded(runtime, database)
