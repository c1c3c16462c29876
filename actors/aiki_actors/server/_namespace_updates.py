"""A namespace's updates as a stream: what the reader missed, how things are, what happens.

The reader joins the feed first; then it is told, in this order:

1. behind a position that the feed still knows, everything since, and nothing else; or
2. for each run of which it names the last seq it has, the rest of its updates, from the journal;
3. a snapshot: the runs that the filter selects as they are now, but those of 2;
4. everything that has happened since it joined, without what 2 gave already.

So no update of a run that it follows by seq or position is missed or told twice, also over restarts
of the server. A change that the snapshot shows already may follow as an update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import trio
from attrs import define, field, frozen

from aiki_actors import engine as e
from aiki_actors.storage import RunFilter, Storage
from aiki_sdk.protocol import RunStatus, RunSummary, Update

from ._feed import Feed, FeedFilter, FeedReader, Numbered
from ._views import run_summary, update_of

SNAPSHOT_MAX: Final = 500
"""Runs in a snapshot: a page."""


@frozen
class SnapshotOf:
    """Runs as they are, newest first; `more`: there are more than a page of them."""

    runs: tuple[RunSummary, ...]
    more: bool


@frozen
class Told:
    """An update from a journal, and the position that the feed had then."""

    update: Update
    position: str


async def past_updates(
    storage: Storage, namespace: str, run_id: str, after: int
) -> list[Update] | None:
    """Return a run's updates above a seq, from its journal; None: no such run.

    The whole journal is folded, for an update carries the status after its entry.
    """
    state = e.RunState(run_id)
    past: list[Update] = []
    for entry in await storage.journal(run_id):
        state = e.evolve(state, entry)
        if entry.seq > after:
            past.append(update_of(state, entry, e.status_of(state)))
    if not state.seq or state.spec.namespace != namespace:
        return None
    return past


@define(eq=False)
class NamespaceUpdates:
    """A context manager and the stream that it gives.

    Attributes:
        workflows, statuses: which runs and changes; empty: all.
        runs: these runs only; empty: all.
        after: by run, the last seq that the reader has.
        position: where the reader was in the feed, if it knows.
        latest: no snapshot.
        buffer: updates that the reader may be behind.
    """

    _storage: Storage
    _feed: Feed
    _namespace: str
    _runs: Sequence[str]
    _workflows: Sequence[str]
    _statuses: Sequence[RunStatus]
    _after: Mapping[str, int]
    _position: str | None
    _latest: bool
    _buffer: int
    _reader: FeedReader = field(init=False)
    _behind: list[tuple[str, int]] = field(factory=lambda: list[tuple[str, int]](), init=False)
    _caught_up: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)
    _snapshot_due: bool = field(default=False, init=False)

    async def __aenter__(self) -> Self:
        """Join the feed."""
        await trio.lowlevel.checkpoint()
        where = FeedFilter(
            self._namespace,
            frozenset(self._runs),
            frozenset(self._workflows),
            frozenset(self._statuses),
        )
        self._reader = self._feed.reader(where, self._buffer)
        if self._position is None or not self._feed.rewind(self._reader, self._position):
            self._behind = list(self._after.items())
            self._behind.reverse()
            self._snapshot_due = not self._latest
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the feed."""
        self._reader.close()

    def cursors(self) -> Mapping[str, int]:
        """Return, for the runs read last, the seq of the last update read."""
        return dict(self._reader.last_seqs)

    def position(self) -> str | None:
        """Return where the reader is in the feed; None if there is something that it has not read.

        It moves on also while nothing passes the filter.
        """
        if self._behind or self._snapshot_due or not self._reader.up_to_date:
            return None
        return self._feed.position()

    async def next_batch(self, gather_s: float = 0.0) -> Sequence[SnapshotOf | Numbered | Told]:
        """Wait for what comes next; never empty. Cancelled, it loses nothing.

        Args:
            gather_s: what happens so soon after the batch before comes together.

        Raises:
            SubscriberTooSlow: the reader was too far behind; it is told from where to resume.
            Unavailable: the server is stopping.
        """
        while self._behind:
            batch = await self._catch_up()
            if batch:
                return batch
        if self._snapshot_due:
            snapshot = await self._take_snapshot()
            self._snapshot_due = False
            return [snapshot]
        while True:
            happened = await self._happened(gather_s)
            if happened:
                return happened

    async def _catch_up(self) -> list[Told]:
        run_id, after = self._behind[-1]
        past = await past_updates(self._storage, self._namespace, run_id, after)
        self._behind.pop()
        self._caught_up[run_id] = after
        if past is None:
            return []
        if past:
            self._caught_up[run_id] = past[-1].seq
            self._reader.note(past[-1])
        where = self._reader.where
        position = self._feed.position()
        return [Told(u, position) for u in past if where.selects(self._namespace, u)]

    async def _happened(self, gather_s: float) -> Sequence[Numbered]:
        reader = self._reader
        batch = await reader.next_batch(gather_s=gather_s)
        if self._caught_up:
            batch = [one for one in batch if self._is_new(one.update)]
        for one in batch:
            reader.note(one.update)
        return batch

    def _is_new(self, update: Update) -> bool:
        known = self._caught_up.get(update.run_id, 0)
        return update.seq > known or (update.live and update.seq == known)

    async def _take_snapshot(self) -> SnapshotOf:
        rows: list[e.Projection] = []
        more = False
        if self._runs:
            for run_id in self._runs:
                row = await self._storage.run(run_id)
                if row is not None and self._selects(row):
                    rows.append(row)
        else:
            for workflow in self._workflows or (None,):
                page = await self._storage.runs(
                    RunFilter(
                        self._namespace, status=tuple(self._statuses) or None, workflow=workflow
                    ),
                    limit=SNAPSHOT_MAX,
                )
                rows.extend(page.runs)
                more = more or page.cursor is not None
            rows.sort(key=lambda row: (row.created_at, row.run_id), reverse=True)
        runs = tuple(run_summary(row) for row in rows if row.run_id not in self._after)
        return SnapshotOf(runs[:SNAPSHOT_MAX], more or len(runs) > SNAPSHOT_MAX)

    def _selects(self, row: e.Projection) -> bool:
        return (
            row.namespace == self._namespace
            and (not self._workflows or row.workflow in self._workflows)
            and (not self._statuses or row.status in self._statuses)
        )
