"""The way of one life of a server to the disk: slow, failing, or closed for good.

The weather is what the nemesis makes it. A write may be refused; it may be made, and its reply be
lost (then the outcome is unknown to the server, or the adapter has found it out by reading back,
and only time was lost); the server may die just before, or just after.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import trio
from attrs import define

from aiki_actors.engine import Entry, Micros, Notice, Projection
from aiki_actors.storage import (
    AppendResult,
    Change,
    ClaimedRun,
    DueRun,
    KnownWorkflow,
    ReadyRun,
    RunFilter,
    RunPage,
)
from aiki_sdk import StorageFull, StorageLocked, UnknownOutcome

from ._chance import latency
from ._disk import Disk
from ._node import Node

T = TypeVar("T")

READ_ERRORS: Final = 0.5
"""How much rarer reads fail than writes."""


@define(eq=False)
class Weather:
    """What the storage is like now.

    Attributes:
        errors: the chance of a call to be refused.
        unknown: the chance of a write to end without a reply.
        slow_s: the longest delay of a call.

    """

    errors: float = 0.0
    unknown: float = 0.0
    slow_s: float = 0.0


@define(eq=False)
class SimStorage:
    """A `Storage` for one life of a server."""

    node: Node
    disk: Disk
    weather: Weather
    rng: random.Random
    latency_s: float

    def _delay(self) -> float:
        if self.weather.slow_s:
            return self.weather.slow_s * self.rng.random()
        return latency(self.rng, self.latency_s)

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        await self.node.pause(self._delay())
        if self.rng.random() < self.weather.errors * READ_ERRORS:
            raise StorageLocked("the simulated storage cannot be read now; try again")
        answer = await call()
        self.node.check()
        return answer

    async def append(self, changes: Sequence[Change]) -> list[AppendResult]:
        """Make the changes durable; see `Storage.append`."""
        node, rng, weather = self.node, self.rng, self.weather
        await node.pause(self._delay())
        if rng.random() < weather.errors:
            if rng.random() < 0.5:
                raise StorageFull("the simulated disk is full; nothing was written")
            raise StorageLocked("the simulated storage is locked; nothing was written")
        lost_reply = rng.random() < weather.unknown
        if lost_reply and rng.random() < 0.5:
            await node.pause(self._delay())
            raise UnknownOutcome("the simulated reply was lost")
        results: list[AppendResult] = []
        with trio.CancelScope(shield=True):
            results = await self.disk.append(node.name, changes)
        node.check()
        await node.pause(self._delay())
        if lost_reply and rng.random() < 0.5:
            raise UnknownOutcome("the simulated reply was lost")
        return results

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """Return a run's entries; see `Storage.journal`."""
        return await self._ask(lambda: self.disk.storage.journal(run_id, after=after, limit=limit))

    async def run(self, run_id: str) -> Projection | None:
        """Return the run's row, or None."""
        return await self._ask(lambda: self.disk.storage.run(run_id))

    async def find(self, namespace: str, workflow: str, reference_id: str) -> Projection | None:
        """Return the run that holds this reference id now, or None."""
        return await self._ask(lambda: self.disk.storage.find(namespace, workflow, reference_id))

    async def runs(self, where: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return a page of runs; see `Storage.runs`."""
        return await self._ask(lambda: self.disk.storage.runs(where, limit=limit, cursor=cursor))

    async def count(self, where: RunFilter) -> int:
        """Count the runs that the filter selects."""
        return await self._ask(lambda: self.disk.storage.count(where))

    async def ready(self, *, limit: int, exclude: Sequence[str] = ()) -> list[ReadyRun]:
        """Return runs that stand in the queue; see `Storage.ready`."""
        return await self._ask(lambda: self.disk.storage.ready(limit=limit, exclude=exclude))

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Return runs due before a time; see `Storage.due`."""
        return await self._ask(
            lambda: self.disk.storage.due(before=before, limit=limit, after=after)
        )

    async def claimed(self, *, limit: int, after: str | None = None) -> list[ClaimedRun]:
        """Return claimed runs; see `Storage.claimed`."""
        return await self._ask(lambda: self.disk.storage.claimed(limit=limit, after=after))

    async def notices(self, *, limit: int, after: str | None = None) -> list[Notice]:
        """Return notices that are still owed; see `Storage.notices`."""
        return await self._ask(lambda: self.disk.storage.notices(limit=limit, after=after))

    async def delete_ended(
        self,
        *,
        before: Micros,
        limit: int,
        namespace: str | None = None,
        workflow: str | None = None,
        excluding: Sequence[str] = (),
    ) -> int:
        """Delete runs that ended before a time; a simulation is over before that comes."""
        return await self._ask(
            partial(
                self.disk.storage.delete_ended,
                before=before,
                limit=limit,
                namespace=namespace,
                workflow=workflow,
                excluding=excluding,
            )
        )

    async def put_workflows(self, workflows: Sequence[KnownWorkflow]) -> None:
        """Keep workflows; see `Storage.put_workflows`."""
        await self._ask(lambda: self.disk.storage.put_workflows(workflows))

    async def workflows(self) -> list[KnownWorkflow]:
        """Return every workflow that is kept."""
        return await self._ask(self.disk.storage.workflows)

    async def size_bytes(self) -> int:
        """Return the size of the database."""
        return await self._ask(lambda: self.disk.storage.size_bytes())
