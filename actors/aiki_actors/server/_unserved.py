"""Runs that nobody serves: queued, and no connected worker has their workflow, version and pool.

The database orders runs by their creation and knows no worker; who is connected is known here. So
the queued runs are read page by page and those that somebody serves are left out, a bounded number
of them for one answer: a page may hold fewer runs than its limit and still lead to another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen

from aiki_actors import engine as e
from aiki_actors.queue import QueueKey
from aiki_actors.storage import RunFilter, RunPage, Storage, write_cursor
from aiki_sdk import LimitExceeded
from aiki_sdk.protocol import RunStatus

READ_MAX: Final = 500
"""Rows read at once."""

LOOKED_AT_MAX: Final = 10_000
"""Queued runs that one page looks at."""

COUNTED_MAX: Final = 100_000
"""Queued runs that one count looks at."""


@frozen
class Unserved:
    """The queued runs of a storage that nobody serves."""

    storage: Storage
    is_served: Callable[[QueueKey], bool]

    async def page(self, where: RunFilter, *, limit: int, cursor: str | None) -> RunPage:
        """Return a page of them, the newest first; a cursor leads on, also from an empty page."""
        found: list[e.Projection] = []
        looked_at = 0
        while True:
            read = await self._read(where, cursor)
            for number, row in enumerate(read.runs, 1):
                looked_at += 1
                if self._lacks(row):
                    found.append(row)
                if len(found) == limit or looked_at == LOOKED_AT_MAX:
                    more = read.cursor is not None or number < len(read.runs)
                    return RunPage(tuple(found), write_cursor(row) if more else None)
            cursor = read.cursor
            if cursor is None:
                return RunPage(tuple(found), None)

    async def count(self, where: RunFilter) -> int:
        """Count them.

        Raises:
            LimitExceeded: more runs are queued than one count looks at.
        """
        count = looked_at = 0
        cursor: str | None = None
        while True:
            read = await self._read(where, cursor)
            count += sum(map(self._lacks, read.runs))
            looked_at += len(read.runs)
            cursor = read.cursor
            if cursor is None:
                return count
            if looked_at >= COUNTED_MAX:
                limit = "queued runs that one count of undeliverable runs looks at"
                fix = "narrow it with more filters, or list them"
                raise LimitExceeded(limit, COUNTED_MAX, looked_at + 1, fix)

    def _lacks(self, row: e.Projection) -> bool:
        return not self.is_served(QueueKey(row.namespace, row.workflow, row.version, row.pool))

    async def _read(self, where: RunFilter, cursor: str | None) -> RunPage:
        """Return a page of the queued runs."""
        if where.status is not None and RunStatus.QUEUED not in where.status:
            return RunPage((), None)
        queued = evolve(where, status=(RunStatus.QUEUED,))
        return await self.storage.runs(queued, limit=READ_MAX, cursor=cursor)
