"""The disk of a test: what outlasts the runtime, and where it can be killed.

`Gate` is the storage that one life of the runtime sees. When that life is killed its gate closes:
nothing that the dying tasks still do reaches the disk, and no answer reaches them, as with a
process that is gone. A `KillPlan` closes it at a chosen write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import trio
from attrs import define, field

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
    Storage,
)

from ._time import TestTime

T = TypeVar("T")


@define(eq=False)
class KillPlan:
    """At which durable write the runtime is killed, once; and what was written until then.

    Attributes:
        at: the number of the write, from 1; None: no kill, writes are only counted.
        before: kill before the write reaches the disk, else after it has and before anybody knows.
        writes: how many there were, in all lives.
        killed: what the write was at which the runtime was killed; None: it was not.

    """

    at: int | None = None
    before: bool = False
    writes: int = field(default=0, init=False)
    killed: str | None = field(default=None, init=False)

    def hits(self, *, before: bool) -> bool:
        """Tell whether the write that is being made is the one."""
        return self.killed is None and self.writes == self.at and before is self.before


@define(eq=False)
class Gate:
    """One life's way to the disk; implements `Storage`.

    Attributes:
        storage: the disk.
        time: held while it works.
        plan: where to kill.
        on_kill: kills the life that this gate belongs to.

    """

    storage: Storage
    time: TestTime
    plan: KillPlan
    on_kill: Callable[[], None]
    closed: bool = field(default=False, init=False)

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._pass()
        with self.time.held():
            answer = await call()
        await self._pass()
        return answer

    async def _pass(self) -> None:
        """Answer nobody when closed: the caller is being cancelled."""
        if self.closed:
            await trio.sleep_forever()

    async def append(self, changes: Sequence[Change]) -> list[AppendResult]:
        """Make the changes durable; see `Storage.append`."""
        await self._pass()
        self.plan.writes += 1
        await self._kill_here(changes, before=True)
        with self.time.held():
            results = await self.storage.append(changes)
        await self._kill_here(changes, before=False)
        await self._pass()
        return results

    async def _kill_here(self, changes: Sequence[Change], *, before: bool) -> None:
        if self.plan.hits(before=before):
            self.plan.killed = described(changes)
            self.on_kill()
            await self._pass()

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """Return a run's entries; see `Storage.journal`."""
        return await self._ask(partial(self.storage.journal, run_id, after=after, limit=limit))

    async def run(self, run_id: str) -> Projection | None:
        """Return the run's row, or None."""
        return await self._ask(partial(self.storage.run, run_id))

    async def find(self, namespace: str, workflow: str, reference_id: str) -> Projection | None:
        """Return the run that holds this reference id now, or None."""
        return await self._ask(partial(self.storage.find, namespace, workflow, reference_id))

    async def runs(self, where: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return a page of runs; see `Storage.runs`."""
        return await self._ask(partial(self.storage.runs, where, limit=limit, cursor=cursor))

    async def count(self, where: RunFilter) -> int:
        """Count the runs that the filter selects."""
        return await self._ask(partial(self.storage.count, where))

    async def ready(self, *, limit: int, exclude: Sequence[str] = ()) -> list[ReadyRun]:
        """Return runs that stand in the queue; see `Storage.ready`."""
        return await self._ask(partial(self.storage.ready, limit=limit, exclude=exclude))

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Return runs due before a time; see `Storage.due`."""
        return await self._ask(partial(self.storage.due, before=before, limit=limit, after=after))

    async def claimed(self, *, limit: int, after: str | None = None) -> list[ClaimedRun]:
        """Return claimed runs; see `Storage.claimed`."""
        return await self._ask(partial(self.storage.claimed, limit=limit, after=after))

    async def notices(self, *, limit: int, after: str | None = None) -> list[Notice]:
        """Return notices that are still owed; see `Storage.notices`."""
        return await self._ask(partial(self.storage.notices, limit=limit, after=after))

    async def delete_ended(
        self,
        *,
        before: Micros,
        limit: int,
        namespace: str | None = None,
        workflow: str | None = None,
        excluding: Sequence[str] = (),
    ) -> int:
        """Delete runs that ended before a time; see `Storage.delete_ended`."""
        return await self._ask(
            partial(
                self.storage.delete_ended,
                before=before,
                limit=limit,
                namespace=namespace,
                workflow=workflow,
                excluding=excluding,
            )
        )

    async def put_workflows(self, workflows: Sequence[KnownWorkflow]) -> None:
        """Keep workflows; see `Storage.put_workflows`."""
        await self._ask(partial(self.storage.put_workflows, workflows))

    async def workflows(self) -> list[KnownWorkflow]:
        """Return every workflow that is kept."""
        return await self._ask(self.storage.workflows)

    async def size_bytes(self) -> int:
        """Return the size of the database."""
        return await self._ask(self.storage.size_bytes)


def described(changes: Sequence[Change]) -> str:
    """Name what a write holds: `run_01… seq 3 run-claimed, seq 4 task-succeeded`."""
    parts: list[str] = []
    for change in changes:
        entries = ", ".join(
            f"seq {entry.seq} {entry.body.kind}{_of(entry)}" for entry in change.entries
        )
        parts.append(f"run {change.run_id}: {entries or 'settled notices'}")
    return "; ".join(parts)


def _of(entry: Entry) -> str:
    address = getattr(getattr(entry.body, "call", None), "address", None)
    if not isinstance(address, str):
        return ""
    return f" ({':'.join(address.split(':')[:2])})"
