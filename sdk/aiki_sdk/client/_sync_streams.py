"""What plain code iterates over: updates, published values, and lists of runs."""

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar, final

from aiki_sdk.client._run_list import RunList
from aiki_sdk.client._stepping import run_plain
from aiki_sdk.client._updates import Updates
from aiki_sdk.client._watching import ValueWatch
from aiki_sdk.protocol import RunPage, RunSummary, Update

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Closable(Protocol[T_co]):
    """An async iterator that can be closed."""

    async def __anext__(self) -> T_co: ...

    async def __aenter__(self) -> object: ...

    async def aclose(self) -> None: ...


class SyncStream(Iterator[T], Generic[T]):
    """An iterator over a stream; close it, or leave its `with` block, to stop early."""

    __slots__ = ("_inner",)

    def __init__(self, inner: _Closable[T]) -> None:
        """Use the methods of `SyncClient` and `SyncRunHandle`."""
        self._inner = inner

    def __next__(self) -> T:
        try:
            return run_plain(self._inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Close the stream; closing again does nothing."""
        run_plain(self._inner.aclose())

    def __enter__(self) -> Self:
        run_plain(self._inner.__aenter__())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@final
class SyncUpdates(SyncStream[Update]):
    """What happens to one run; see `Updates`."""

    __slots__ = ("_updates",)

    def __init__(self, updates: Updates) -> None:
        """Use `SyncRunHandle.updates`."""
        super().__init__(updates)
        self._updates = updates

    @property
    def last_seq(self) -> int:
        """The seq of the last update that was read; pass it as `after=` to go on from here."""
        return self._updates.last_seq


@final
class SyncValueWatch(SyncStream[T]):
    """What a run publishes under one key; see `ValueWatch`."""

    __slots__ = ()

    def __init__(self, watch: ValueWatch[T]) -> None:
        """Use `SyncRunHandle.watch`."""
        super().__init__(watch)


@final
class SyncRunList:
    """The runs that match a query, the newest first: iterate for all, or take one page.

    ::

        for run in client.list(status="failed"):
            ...
    """

    __slots__ = ("_first", "_runs")

    def __init__(self, runs: RunList) -> None:
        """Use `SyncClient.list`."""
        self._runs = runs
        self._first: RunPage | None = None

    def page(self) -> RunPage:
        """Return one page; its `cursor` leads to the next."""
        return run_plain(_page(self._runs))

    @property
    def runs(self) -> tuple[RunSummary, ...]:
        """The runs of one page, which is asked for when `runs` or `cursor` is first looked at."""
        return self._page_once().runs

    @property
    def cursor(self) -> str | None:
        """Where the page after that of `runs` begins; None: there is none."""
        return self._page_once().cursor

    def _page_once(self) -> RunPage:
        if self._first is None:
            self._first = self.page()
        return self._first

    def __iter__(self) -> Iterator[RunSummary]:
        return _Rows(aiter(self._runs))


async def _page(runs: RunList) -> RunPage:
    return await runs


@final
class _Rows(Iterator[RunSummary]):
    """Rows, page by page; it holds nothing that would have to be closed."""

    __slots__ = ("_rows",)

    def __init__(self, rows: AsyncIterator[RunSummary]) -> None:
        self._rows = rows

    def __next__(self) -> RunSummary:
        try:
            return run_plain(self._rows.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
