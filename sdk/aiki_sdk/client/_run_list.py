"""A list of runs: await it for one page, or iterate over all pages."""

from collections.abc import AsyncIterator, Generator
from typing import Any, final

from attrs import evolve

from aiki_sdk.protocol import ClientPort, RunPage, RunQuery, RunSummary


@final
class RunList:
    """The runs that match a query, the newest first.

    ::

        page = await client.list(status="failed")              # one page, with a cursor
        async for run in client.list(status="failed"): ...     # all of them, page by page

    Iterating again begins again.
    """

    __slots__ = ("_port", "_query")

    def __init__(self, port: ClientPort, query: RunQuery) -> None:
        """Use `Client.list`."""
        self._port = port
        self._query = query

    def __await__(self) -> Generator[Any, Any, RunPage]:
        return self._port.list(self._query).__await__()

    def __aiter__(self) -> AsyncIterator[RunSummary]:
        return _RunIterator(self._port, self._query)


@final
class _RunIterator(AsyncIterator[RunSummary]):
    """Fetches the next page when the one before is used up; holds nothing open in between."""

    __slots__ = ("_port", "_query", "_rows")

    def __init__(self, port: ClientPort, query: RunQuery) -> None:
        self._port = port
        self._query: RunQuery | None = query
        self._rows: list[RunSummary] = []  # of the current page, the next one last

    async def __anext__(self) -> RunSummary:
        while not self._rows:
            if self._query is None:
                raise StopAsyncIteration
            page = await self._port.list(self._query)
            self._rows = list(reversed(page.runs))
            # Changed after the await only, so that a cancelled or failed read can be repeated.
            self._query = None if page.cursor is None else evolve(self._query, cursor=page.cursor)
        return self._rows.pop()
