"""A run's updates as an async iterator that can be left, cancelled and resumed without a gap.

Not an async generator, so that nothing depends on when one is finalised: the port's stream is open
only while there is somebody to read it, and whatever interrupts a read (cancellation, a lost
connection) closes it. The next read opens it again after the last seq; the journal has every seq,
so nothing is lost and nothing comes twice.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self, final

from aiki_sdk._errors import Unavailable
from aiki_sdk.protocol import ClientPort, RunStatus, Update

_IDLE_REOPENS_MAX: Final = 3
"""Streams in a row that end without an update and without the run's end before it is an error."""

_FINAL: Final = frozenset({RunStatus.COMPLETED, RunStatus.CANCELLED})


@final
class Updates:
    """What happens to one run, from its first entry or after a seq, until the run ends.

    ::

        async for update in handle.updates():
            print(update.seq, update.kind, update.status)

    Use ``async with handle.updates() as updates:`` around the loop where it may be left early. One
    task reads at a time.
    """

    __slots__ = ("_after", "_context", "_done", "_ended", "_idle", "_port", "_run_id", "_stream")

    def __init__(self, port: ClientPort, run_id: str, after: int) -> None:
        """Use `RunHandle.updates`."""
        self._port = port
        self._run_id = run_id
        self._after = after
        self._context: AbstractAsyncContextManager[AsyncIterator[Update]] | None = None
        self._stream: AsyncIterator[Update] | None = None
        self._idle = 0
        self._ended = False
        self._done = False

    @property
    def last_seq(self) -> int:
        """The seq of the last update that was read; pass it as `after=` to go on from here."""
        return self._after

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Wait for the next update.

        Raises:
            StopAsyncIteration: the run has ended and everything up to its end was read.
            NotFound: there is no such run.
            Unavailable: the connection was lost; calling again resumes after the last update.
        """
        while not self._done:
            stream = self._stream if self._stream is not None else await self._open()
            try:
                update = await anext(stream)
            except StopAsyncIteration:
                await self._close(None)
                self._done = self._ended
                if not self._ended:
                    await self._settle_end()
                continue
            except BaseException as error:
                await self._close(error)
                raise
            self._after = max(self._after, update.seq)
            # A run that has failed may have been retried since: that is asked for.
            self._ended = update.status in _FINAL and not update.live
            self._idle = 0
            return update
        raise StopAsyncIteration

    async def _open(self) -> AsyncIterator[Update]:
        context = self._port.updates(self._run_id, after=self._after)
        stream = await context.__aenter__()
        # Set together and after the await: a cancelled opening leaves nothing that is half open.
        self._context, self._stream = context, stream
        return stream

    async def _close(self, error: BaseException | None) -> None:
        context, self._context, self._stream = self._context, None, None
        if context is not None:
            traceback = None if error is None else error.__traceback__
            await context.__aexit__(None if error is None else type(error), error, traceback)

    async def _settle_end(self) -> None:
        """Find out why the stream ended: with the run, or because the reader was cut off."""
        run = await self._port.get(self._run_id)
        if run.status.terminal and run.seq <= self._after:
            self._done = True
            return
        self._idle += 1
        if self._idle > _IDLE_REOPENS_MAX:
            self._idle = 0
            message = (
                f"the stream of run {self._run_id} was closed {_IDLE_REOPENS_MAX} times without "
                f"an update after seq {self._after}; read again to resume there"
            )
            raise Unavailable(message)

    async def aclose(self) -> None:
        """Close the stream; what was not read is dropped. Closing again does nothing."""
        self._done = True
        await self._close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
