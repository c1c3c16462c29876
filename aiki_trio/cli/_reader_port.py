"""`ReaderPort`: what a database file says of its runs, as a `ClientPort` that only reads.

It works beside a running runtime, for it needs no lock. Nothing is pushed to it: who watches a run
through it looks whether the file has changed, a few times a second, since SQLite tells other
processes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Never, Self

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.server._views import journal_entry, outcome_of, run_info, run_summary, update_of
from aiki_actors.storage import RunFilter, SqliteReader
from aiki_sdk import InvalidRequest, NotFound, StorageReadOnly
from aiki_sdk.protocol import (
    ControlRequest,
    EventReceipt,
    ForkRequest,
    Health,
    HealthStatus,
    JournalEntry,
    Outcome,
    Problem,
    RunInfo,
    RunPage,
    RunQuery,
    SendRequest,
    StartRequest,
    StartResult,
    Update,
    WorkflowInfo,
)

LOOK_S: Final = 0.25
"""Seconds between two looks at the file while somebody watches."""


@define(eq=False)
class ReaderPort:
    """One namespace of a database file."""

    reader: SqliteReader
    namespace: str

    async def state(self, run_id: str) -> tuple[e.RunState, list[Update]]:
        """Fold a run's journal; return its state and the updates that led there.

        Raises:
            NotFound: there is no such run in this namespace.
        """
        state = e.RunState(run_id)
        updates: list[Update] = []
        for entry in await self.reader.journal(run_id):
            state = e.evolve(state, entry)
            updates.append(update_of(state, entry, e.status_of(state)))
        if not state.seq or state.spec.namespace != self.namespace:
            message = (
                f"run {run_id} does not exist in namespace {self.namespace!r} of database "
                f"{self.reader.path}"
            )
            raise NotFound(message, details={"run_id": run_id})
        return state, updates

    async def get(self, run_id: str) -> RunInfo:
        """Return what is known of a run."""
        return run_info((await self.state(run_id))[0])

    async def find(self, workflow: str, reference_id: str) -> RunInfo:
        """Return the run that holds a reference id now."""
        row = await self.reader.find(self.namespace, workflow, reference_id)
        if row is None:
            message = (
                f"no run of workflow {workflow!r} has reference id {reference_id!r} in namespace "
                f"{self.namespace!r} of database {self.reader.path}"
            )
            raise NotFound(message)
        return await self.get(row.run_id)

    def _filter(self, query: RunQuery) -> RunFilter:
        if query.undeliverable:
            message = (
                f"undeliverable=True is not possible on database {self.reader.path} alone: a file "
                "does not know which workers are connected; ask the runtime that owns it"
            )
            raise InvalidRequest(message)
        return RunFilter(
            namespace=self.namespace,
            status=query.status or None,
            workflow=query.workflow,
            version=query.version,
            reference_id=query.reference_id,
            parent_id=query.parent_id,
            labels=tuple(query.labels.items()),
            created_after=query.created_after,
            created_before=query.created_before,
            query=query.query,
        )

    async def list(self, query: RunQuery) -> RunPage:
        """Return a page of the runs that match, the newest first."""
        page = await self.reader.runs(self._filter(query), limit=query.limit, cursor=query.cursor)
        return RunPage(tuple(run_summary(row) for row in page.runs), page.cursor)

    async def count(self, query: RunQuery) -> int:
        """Count the runs that match."""
        return await self.reader.count(self._filter(query))

    async def journal(self, run_id: str, *, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return the entries with seq above `after`, in order, at most `limit`."""
        row = await self.reader.run(run_id)
        if row is None or row.namespace != self.namespace:
            await self.state(run_id)
        entries = await self.reader.journal(run_id, after=after, limit=limit)
        return [journal_entry(entry) for entry in entries]

    async def result(self, run_id: str, *, wait_s: float | None) -> Outcome | None:
        """Wait for a run's end, looking at the file."""
        async with self.updates(run_id, after=0, wait_s=wait_s) as updates:
            async for _ in updates:
                continue
        return outcome_of((await self.state(run_id))[0])

    @asynccontextmanager
    async def updates(
        self, run_id: str, *, after: int, wait_s: float | None = None
    ) -> AsyncGenerator[AsyncIterator[Update]]:
        """Open the stream of a run's updates with seq above `after`."""
        deadline = trio.current_time() + (float("inf") if wait_s is None else wait_s)
        yield _Updates(self, run_id, after, deadline)

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return none: a file does not know what code there is."""
        await trio.lowlevel.checkpoint()
        return ()

    async def health(self) -> Health:
        """Return that the file can be read."""
        await self.reader.size_bytes()
        return Health(HealthStatus.OK)

    async def aclose(self) -> None:
        """Nothing to give back: who opened the file closes it."""
        await trio.lowlevel.checkpoint()

    # --- What changes something is refused --------------------------------------------------------

    async def _refuse(self) -> Never:
        await trio.lowlevel.checkpoint()
        message = f"database {self.reader.path} is open for reading alone; nothing was changed"
        raise StorageReadOnly(message)

    async def start(self, request: StartRequest) -> StartResult:  # noqa: ARG002
        """Refuse."""
        return await self._refuse()

    async def start_many(
        self,
        requests: Sequence[StartRequest],  # noqa: ARG002
    ) -> Sequence[StartResult | Problem]:
        """Refuse."""
        return await self._refuse()

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:  # noqa: ARG002
        """Refuse."""
        return await self._refuse()

    async def send_many(
        self,
        run_ids: Sequence[str],  # noqa: ARG002
        request: SendRequest,  # noqa: ARG002
    ) -> Sequence[EventReceipt | Problem]:
        """Refuse."""
        return await self._refuse()

    async def control(self, run_id: str, request: ControlRequest) -> None:  # noqa: ARG002
        """Refuse."""
        await self._refuse()

    async def control_many(
        self,
        run_ids: Sequence[str],  # noqa: ARG002
        request: ControlRequest,  # noqa: ARG002
    ) -> Sequence[Problem | None]:
        """Refuse."""
        return await self._refuse()

    async def fork(self, run_id: str, request: ForkRequest) -> StartResult:  # noqa: ARG002
        """Refuse."""
        return await self._refuse()


@define(eq=False)
class _Updates:
    """A run's updates, found by looking at the file whenever it has changed."""

    port: ReaderPort
    run_id: str
    after: int
    deadline: float
    _found: list[Update] = field(factory=lambda: list[Update](), init=False)
    _seen: int | None = field(default=None, init=False)
    _ended: bool = field(default=False, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        while not self._found:
            if self._ended or not await self._look():
                raise StopAsyncIteration
        return self._found.pop(0)

    async def _look(self) -> bool:
        """Read what is new, if anything is; False: the time is over."""
        count = await self.port.reader.change_count()
        if count != self._seen:
            self._seen = count
            state, updates = await self.port.state(self.run_id)
            self._found = [update for update in updates if update.seq > self.after]
            self.after = state.seq
            self._ended = state.phase.terminal
            if self._found or self._ended:
                return True
        left_s = self.deadline - trio.current_time()
        if left_s <= 0:
            return False
        await trio.sleep(min(LOOK_S, left_s))
        return True
