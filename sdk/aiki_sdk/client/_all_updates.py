"""The updates of many runs as an async iterator: what happens from now on, without an end."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, cast, final

from aiki_sdk._errors import InvalidRequest
from aiki_sdk.protocol import ClientPort, Update, UpdateQuery, WatchingPort


@final
class AllUpdates:
    """What happens to the runs of a namespace, or to some of them, from now on.

    ::

        async with client.updates(status="failed") as updates:
            async for update in updates:
                print(update.run_id, update.kind)

    It begins with its `async with`, or else with the first read. One task reads at a time.
    """

    __slots__ = ("_closed", "_context", "_port", "_query", "_stream")

    def __init__(self, port: ClientPort, query: UpdateQuery) -> None:
        """Use `Client.updates`."""
        if not callable(getattr(port, "watch", None)):
            message = (
                "updates() of many runs are not to be had here; connect to a server by its URL, or "
                "use the client of a runtime in this process"
            )
            raise InvalidRequest(message)
        self._port = cast("WatchingPort", port)
        self._query = query
        self._context: AbstractAsyncContextManager[AsyncIterator[Update]] | None = None
        self._stream: AsyncIterator[Update] | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Wait for the next update.

        Raises:
            StopAsyncIteration: it was closed.
            Unavailable: the server cannot be reached, or is not known to have told everything since
                the last update; reading again goes on with what happens from then on.
        """
        if self._closed:
            raise StopAsyncIteration
        stream = self._stream if self._stream is not None else await self._open()
        return await anext(stream)

    async def _open(self) -> AsyncIterator[Update]:
        context = self._port.watch(self._query)
        stream = await context.__aenter__()
        # Set together and after the await: a cancelled opening leaves nothing that is half open.
        self._context, self._stream = context, stream
        return stream

    async def aclose(self) -> None:
        """Close the stream; what was not read is dropped. Closing again does nothing."""
        self._closed = True
        context, self._context, self._stream = self._context, None, None
        if context is not None:
            await context.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        if self._stream is None and not self._closed:
            await self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
