"""The storage port: what the rest of the system may ask of a database, and what it promises.

`append` is the only way to write a run. A batch of changes, of any number of runs, is durable as
a whole when it returns; one change that cannot be written (another owner wrote that seq, the
reference id is taken) is refused alone and never spoils the others. The unique `(run_id, seq)` is
the last fence between two owners of one run.

Every adapter passes the contract suite in `tests/contract/test_storage.py`. Errors are the
`StorageError` family of `aiki_sdk`; a commit whose outcome cannot be known is resolved by the
adapter by reading back, and only if that fails too it raises `UnknownOutcome`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from attrs import frozen

from aiki_actors.engine import Entry, Micros, Notice, Projection
from aiki_sdk import JsonValue
from aiki_sdk.protocol import Priority, RunStatus


@frozen
class Change:
    """One atomic change of one run, written by its owner.

    Attributes:
        run_id: the run.
        first_seq: seq of the first entry; the run's last durable seq plus one.
        entries: what happened, in order, seqs gapless; may be empty when only notices settle. To
            settle notices to a run that does not exist (any more), `first_seq` is 1.
        projection: the run's new row, or None when nothing in it changed. After the creation
            only `status`, `attempt`, `epoch`, `worker_id` and the times but `created_at` change.
        create: the row is new; `projection` is set and `first_seq` is 1.
        supersedes: on create, the ended run that gives its reference id up to this one.
        notices: commands now owed to other runs.
        settled: ids of notices to this run that these entries carry out.

    """

    run_id: str
    first_seq: int
    entries: tuple[Entry, ...]
    projection: Projection | None = None
    create: bool = False
    supersedes: str | None = None
    notices: tuple[Notice, ...] = ()
    settled: tuple[str, ...] = ()


@frozen
class Appended:
    """The change is durable."""


@frozen
class SeqConflict:
    """Somebody else wrote this run: the change was not applied.

    Attributes:
        run_id: the run.
        seq: `first_seq` of the refused change, which is not the run's last seq plus one.

    """

    run_id: str
    seq: int


@frozen
class ReferenceTaken:
    """Another run holds the reference id: the change was not applied.

    Attributes:
        run_id: the run that holds it.
        input_hash: that run's.

    """

    run_id: str
    input_hash: str


AppendResult = Appended | SeqConflict | ReferenceTaken


@frozen
class RunFilter:
    """Which runs to list; None: any. Times bound `created_at`, half-open: [after, before).

    Each word of `query` is found in the run's id, workflow or reference id; ASCII letters in either
    case are the same.
    """

    namespace: str
    status: tuple[RunStatus, ...] | None = None
    workflow: str | None = None
    version: str | None = None
    reference_id: str | None = None
    parent_id: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    query: str | None = None


@frozen
class RunPage:
    """A page of runs, newest first, and the cursor of the next one (None: this was the last)."""

    runs: tuple[Projection, ...]
    cursor: str | None


@frozen
class ReadyRun:
    """A run that stands in the queue."""

    run_id: str
    namespace: str
    workflow: str
    version: str
    pool: str
    priority: Priority
    ready_at: Micros


@frozen
class DueRun:
    """A run of which something is due at `due_at`."""

    run_id: str
    due_at: Micros


@frozen
class ClaimedRun:
    """A run that a worker holds."""

    run_id: str
    worker_id: str
    epoch: int


@frozen
class KnownWorkflow:
    """A workflow that some worker has announced, or some start has brought along.

    Attributes:
        namespace: whose it is.
        name: of the workflow; with the version, unique in the namespace.
        version: the version.
        definition: all that is known of it, as a JSON object; the last word of a worker counts.
    """

    namespace: str
    name: str
    version: str
    definition: JsonValue


class Storage(Protocol):
    """A database of runs. One writer calls `append`; reads come from anywhere."""

    async def append(self, changes: Sequence[Change]) -> list[AppendResult]:
        """Make the changes durable in one transaction; one result per change, in order.

        Changes of one run in one batch are applied in order; what follows a refused change of a
        run is refused too. Not cancelled half-way: once begun, the write is carried to its end
        even when the caller is cancelled.

        Raises:
            PayloadError: a value in a change cannot be stored; nothing was written.
            StorageError: the database failed; nothing was written.
            UnknownOutcome: the changes may or may not have been written.

        """
        ...

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """Return the entries with seq above `after`, in order; empty if the run does not exist."""
        ...

    async def run(self, run_id: str) -> Projection | None:
        """Return the run's row, or None."""
        ...

    async def find(self, namespace: str, workflow: str, reference_id: str) -> Projection | None:
        """Return the run that holds this reference id now, or None."""
        ...

    async def runs(self, where: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return a page of runs, newest first by (created_at, run_id)."""
        ...

    async def count(self, where: RunFilter) -> int:
        """Count the runs that the filter selects."""
        ...

    async def ready(self, *, limit: int, exclude: Sequence[str] = ()) -> list[ReadyRun]:
        """Return runs that stand in the queue, by priority, then oldest first."""
        ...

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Return runs due before a time, in (due_at, run_id) order, from behind `after`."""
        ...

    async def claimed(self, *, limit: int, after: str | None = None) -> list[ClaimedRun]:
        """Return claimed runs in order of run id, from behind `after`."""
        ...

    async def notices(self, *, limit: int, after: str | None = None) -> list[Notice]:
        """Return notices that are still owed, in order of their id, from behind `after`."""
        ...

    async def delete_ended(
        self,
        *,
        before: Micros,
        limit: int,
        namespace: str | None = None,
        workflow: str | None = None,
        excluding: Sequence[str] = (),
    ) -> int:
        """Delete runs that ended before a time, oldest first, with their journals; return how many.

        Notices that they owe, or are owed, stay until they are settled.

        Args:
            before: they ended before this.
            limit: at most so many.
            namespace: only its runs.
            workflow: only its runs, by name; all versions.
            excluding: not the runs of these workflows.
        """
        ...

    async def put_workflows(self, workflows: Sequence[KnownWorkflow]) -> None:
        """Keep workflows durably, in one transaction; what was kept under the same key is replaced.

        The key is (namespace, name, version). Not cancelled half-way.

        Raises:
            PayloadError: a definition cannot be JSON; nothing was written.
            StorageError: the database failed; nothing was written.
        """
        ...

    async def workflows(self) -> list[KnownWorkflow]:
        """Return every workflow that is kept, in order of (namespace, name, version)."""
        ...

    async def size_bytes(self) -> int:
        """Return the size of the database."""
        ...
