"""The keeper: makes sure that nothing which the machinery forgot stays forgotten.

Everything else in the server is quick and may lose a message; the keeper reads the database,
which loses nothing, and repeats what is owed: claims of workers that are gone, notices that were
not settled. At start that is the recovery after a crash.

Invariant: whatever the keeper repeats is harmless when it was not forgotten after all.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import ClassVar, Final, Never

import trio
from attrs import define, field, frozen

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.kernel import Actor, ActorContext
from aiki_actors.storage import Storage
from aiki_sdk import AikiError

from ._dispatcher import Dispatcher
from ._runs import Runs
from ._services import Do

LOGGER: Final = logging.getLogger("aiki.server")


@frozen
class KeeperSettings:
    """How often and how much the keeper sweeps.

    Attributes:
        sweep_s: seconds between two sweeps.
        sweep_max_s: up to which that doubles after each sweep, where time is skipped and a sweep
            every few seconds would be most of the work; None: it stays as it is.
        page: rows read at once.
        parallel: runs that are woken at the same time during recovery.
        undelivered_max: how long a ready run may stand unclaimed before it stalls.
        retention: how long ended runs are kept; None: for ever.
        own_retention: whether `@workflow(retention=…)` counts instead for its runs.

    """

    sweep_s: float = 5.0
    page: int = 500
    parallel: int = 64
    undelivered_max: timedelta = timedelta(hours=24)
    retention: timedelta | None = timedelta(days=30)
    own_retention: bool = True
    sweep_max_s: float | None = None


@define(eq=False)
class Keeper(Actor[Never]):
    """Sweeps the database.

    Attributes:
        retentions_s: returns for how many seconds ended runs are kept, by the name of each workflow
            that says so itself.
        may_return: tells whether a worker that is not connected may yet come back to its claims.

    """

    kind: ClassVar[str] = "keeper"
    storage: Storage
    runs: Runs
    dispatcher: Dispatcher
    now: Callable[[], e.Micros]
    settings: KeeperSettings = field(factory=KeeperSettings)
    retentions_s: Callable[[], Mapping[str, float]] = dict[str, float]
    may_return: Callable[[str], bool] = field(default=lambda _worker_id: False)
    recovered: trio.Event = field(factory=trio.Event)
    _owed: set[str] = field(factory=lambda: set[str](), init=False)
    _first: bool = field(default=True, init=False)
    _counts: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)

    async def started(self, context: ActorContext[Never]) -> None:
        """Begin to sweep."""
        context.start_soon(self._keep)

    def describe(self) -> str:
        """Return what was found so far."""
        return (
            ", ".join(f"{count} {what}" for what, count in self._counts.items()) or "nothing lost"
        )

    async def _keep(self) -> None:
        sweeps = (
            self._lost_claims,
            self._notices,
            self._undelivered,
            self._ended_runs,
        )
        pause_s = self.settings.sweep_s
        while True:
            for sweep in sweeps:
                await self._try(sweep)
            self._first = False
            self.recovered.set()
            await trio.sleep(pause_s)
            if self.settings.sweep_max_s is not None:
                pause_s = min(pause_s * 2, self.settings.sweep_max_s)

    async def _try(self, sweep: Callable[[], Awaitable[None]]) -> None:
        """Sweep; an error of the database is logged, the next sweep comes anyway."""
        try:
            await sweep()
        except AikiError as error:
            LOGGER.warning("sweep %s failed and is repeated: %s", sweep.__name__, error)

    def _count(self, what: str, number: int = 1) -> None:
        self._counts[what] = self._counts.get(what, 0) + number

    async def _lost_claims(self) -> None:
        """Take back the claims of workers that are not connected, and those that are broken."""
        broken, self.dispatcher.broken = self.dispatcher.broken, {}
        try:
            await self._lose(broken)
        except AikiError:
            self.dispatcher.broken = {**broken, **self.dispatcher.broken}
            raise

    async def _lose(self, broken: Mapping[tuple[str, int], str]) -> None:
        after: str | None = None
        while True:
            page = await self.storage.claimed(limit=self.settings.page, after=after)
            connected = self.dispatcher.sessions
            lost = [
                run
                for run in page
                if (run.run_id, run.epoch) in broken
                or (run.worker_id not in connected and not self.may_return(run.worker_id))
            ]
            limiter = trio.CapacityLimiter(self.settings.parallel)
            async with trio.open_nursery() as nursery:
                for run in lost:
                    fault_point("recovery.claims")
                    reason = broken.get(
                        (run.run_id, run.epoch), f"worker {run.worker_id} is not connected"
                    )
                    command = e.LoseClaim(run.epoch, reason)
                    nursery.start_soon(self._do, limiter, run.run_id, command)
            self._count("claims lost", len(lost))
            if len(page) < self.settings.page:
                return
            after = page[-1].run_id

    async def _do(self, limiter: trio.CapacityLimiter, run_id: str, command: e.Command) -> None:
        async with limiter:
            try:
                await self.runs.do(run_id, command)
            except AikiError as error:
                LOGGER.warning("run %s: %s", run_id, error)

    async def _notices(self) -> None:
        """Deliver what was owed at the sweep before and still is; at start, all of it."""
        owed: set[str] = set()
        after: str | None = None
        while True:
            page = await self.storage.notices(limit=self.settings.page, after=after)
            for notice in page:
                if self._first or notice.id in self._owed:
                    fault_point("recovery.notices")
                    self.runs.deliver(notice)
                    self._count("notices repeated")
                owed.add(notice.id)
            if len(page) < self.settings.page:
                break
            after = page[-1].id
            await trio.lowlevel.checkpoint()
        self._owed = owed

    async def _undelivered(self) -> None:
        """Stall ready runs that nobody has claimed for too long."""
        limit = self.settings.undelivered_max
        before = self.now() - limit // timedelta(microseconds=1)
        for run in await self.storage.ready(limit=self.settings.page):
            if run.ready_at < before:
                reason = (
                    f"no worker took it within {limit}; it needs one that serves workflow "
                    f"{run.workflow!r} version {run.version!r} in pool {run.pool!r}"
                )
                self.runs.tell(run.run_id, Do(e.StallRun(reason)))
                self._count("runs stalled")

    async def _ended_runs(self) -> None:
        """Delete runs that ended longer ago than they are kept."""
        fault_point("retention.deleting")
        settings, page = self.settings, self.settings.page
        own = sorted(self.retentions_s().items()) if settings.own_retention else []
        deleted = 0
        for workflow, retention_s in own:
            before = e.Micros(self.now() - round(retention_s * e.SECOND))
            deleted += await self.storage.delete_ended(before=before, limit=page, workflow=workflow)
        if settings.retention is not None:
            before = e.Micros(self.now() - settings.retention // timedelta(microseconds=1))
            excluding = [workflow for workflow, _ in own]
            deleted += await self.storage.delete_ended(
                before=before, limit=page, excluding=excluding
            )
        if deleted:
            self._count("ended runs deleted", deleted)
