"""Live updates over HTTP: a stream that outlasts its connections.

A connection that is lost, falls silent or is ended by the server (`slow`, `closing`) is replaced by
another one after the last seq; the journal has every seq, so the reader notices nothing.

Invariant: an update that tells of an entry is given once, in order of seq.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import httpx
from attrs import define, field

from aiki_sdk._errors import AikiError, PayloadError, Unavailable
from aiki_sdk._json import JsonValue, loads
from aiki_sdk.http._caller import Caller
from aiki_sdk.http._exchange import Chunks
from aiki_sdk.http._failures import (
    Failure,
    failure_of_error,
    failure_of_response,
    read_answer,
)
from aiki_sdk.http._retrying import Tries
from aiki_sdk.http._sse import EventReader, SentEvent, StreamTooLong
from aiki_sdk.protocol import Update

_OVER: Final = "ended"

_LAST_WORD_S: Final = 0.5
"""How long a server that has ended a stream is waited for to end its answer too."""


@define(eq=False)
class Place:
    """Where a stream is: what to ask for at its next opening, and when its time is over.

    Attributes:
        params: what is asked for at every opening.
        first: what is asked for at the first one besides.
        after: the last seq that was given, of a stream of one run.
        last_id: the id of the last event, of a stream of many.
    """

    _monotonic: Callable[[], float]
    params: Sequence[tuple[str, str]] = ()
    first: Sequence[tuple[str, str]] = ()
    after: int | None = None
    last_id: str = ""
    _until_s: float = field(default=math.inf, init=False)

    def end_in(self, wait_s: float | None) -> None:
        """Let the time be over in so many seconds; None: never."""
        if wait_s is not None:
            self._until_s = self._monotonic() + wait_s

    def left_s(self) -> float:
        """Return the seconds left."""
        return self._until_s - self._monotonic()

    def query(self) -> list[tuple[str, str]]:
        """Return what to ask for now."""
        after = [] if self.after is None else [("after", str(self.after))]
        return [*self.params, *self.first, *after]


@define(eq=False)
class Connection:
    """Events of one route, over as many connections as it takes."""

    _caller: Caller
    _path: str
    _place: Place
    _tries: Tries = field(init=False)
    _chunks: Chunks | None = field(default=None, init=False)
    _reader: EventReader = field(factory=EventReader, init=False)
    _ready: deque[SentEvent] = field(factory=lambda: deque[SentEvent](), init=False)

    def __attrs_post_init__(self) -> None:
        self._tries = self._caller.patient_tries()

    def __del__(self) -> None:
        # Left without being closed: nothing can be awaited here, so the port closes it later.
        if self._chunks is not None:
            self._caller.abandon(self._chunks)

    async def next(self) -> SentEvent | None:
        """Wait for the next event, reconnecting as often as needed; None: the time is over."""
        while not self._ready:
            left_s = self._place.left_s()
            if left_s <= 0:
                return None
            if self._chunks is None:
                await self.open()
                continue
            try:
                piece = await self._chunks.next(min(self._caller.settings.stream_idle_s, left_s))
                self._ready.extend(self._reader.feed(piece))
            except TimeoutError:
                # Silence: the time is over, or the other side is gone without a word.
                await self.aclose()
            except (httpx.RequestError, StreamTooLong) as error:
                await self.lost(self._failure(error))
            else:
                if not piece:
                    await self.lost(None)
                self._tries.succeed()
        return self._ready.popleft()

    def _failure(self, error: httpx.RequestError | StreamTooLong) -> Failure:
        if isinstance(error, httpx.RequestError):
            return failure_of_error(error, self._caller.url)
        return Failure(Unavailable(str(error)), passing=False, sent=True)

    async def open(self) -> None:
        """Open a connection, trying again while that may help and there is time.

        Raises:
            AikiError: what the server answered, or why it cannot be reached.
        """
        while True:
            failure: Failure | None
            try:
                idle_s = min(self._caller.settings.stream_idle_s, max(self._place.left_s(), 0.001))
                place = self._place
                chunks = await self._caller.open_stream(
                    self._path, place.query(), idle_s, place.last_id
                )
            except httpx.RequestError as error:
                failure = failure_of_error(error, self._caller.url)
            else:
                failure = await self._refusal(chunks)
                if failure is None:
                    self._chunks, self._reader = chunks, EventReader()
                    self._place.first = ()
                    return
            if not failure.may_repeat(repeatable=True):
                raise failure.error
            await self.lost(failure)
            if self._place.left_s() <= 0:
                raise failure.error

    async def _refusal(self, chunks: Chunks) -> Failure | None:
        """Return the error that an answer is, having read it; None: it is a stream."""
        response = chunks.response
        if response.is_success:
            return None
        body = b""
        try:
            while piece := await chunks.next(self._caller.settings.stream_idle_s):
                body += piece
        except (TimeoutError, httpx.RequestError):
            body = b""  # the status says enough
        finally:
            await chunks.aclose()
        whole = httpx.Response(
            response.status_code,
            headers=_plain(response.headers),
            content=body,
            request=response.request,
        )
        return failure_of_response(whole, self._caller.url)

    async def lost(self, failure: Failure | None) -> None:
        """Close the connection, and wait until another one may be tried.

        Raises:
            AikiError: it was tried for too long.
        """
        await self.aclose()
        pause_s = self._tries.pause_s(None if failure is None else failure.retry_after_s)
        if pause_s is None or (failure is not None and not failure.passing):
            raise _gone(self._caller.url) if failure is None else failure.error
        await self._caller.pause(min(pause_s, max(self._place.left_s(), 0.0)))

    async def finish(self) -> None:
        """Close what the server has ended: read to its end, a connection can be used again."""
        with suppress(TimeoutError, httpx.RequestError):
            if self._chunks is not None:
                await self._chunks.next(min(_LAST_WORD_S, max(self._place.left_s(), 0.001)))
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection, if one is open; the next read opens another."""
        chunks, self._chunks = self._chunks, None
        self._ready.clear()
        if chunks is not None:
            await chunks.aclose()


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Leave out how a body was packed, for it has been unpacked."""
    packed = ("content-encoding", "content-length", "transfer-encoding")
    return {name: value for name, value in headers.items() if name not in packed}


def _gone(url: str) -> AikiError:
    return Unavailable(f"the server at {url} keeps closing the stream; read again to resume")


def end_reason(event: SentEvent) -> str:
    """Return why the server ended a stream."""
    body = _json(event)
    reason = body.get("reason") if isinstance(body, dict) else None
    return reason if isinstance(reason, str) else ""


def _json(event: SentEvent) -> JsonValue:
    try:
        return loads(event.data)
    except PayloadError:
        return None


@define(eq=False)
class RunStream:
    """One run's updates: a context manager and the iterator that it gives."""

    _caller: Caller
    _path: str
    _place: Place
    _wait_s: float | None
    _connection: Connection = field(init=False)
    _ended: bool = field(default=False, init=False)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            NotFound: there is no such run.
        """
        self._place.end_in(self._wait_s)
        self._connection = Connection(self._caller, self._path, self._place)
        await self._connection.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Return the next update; ends with the run, or when the time is over."""
        after = self._place.after or 0
        while not self._ended:
            event = await self._connection.next()
            if event is None or (event.event == "end" and end_reason(event) == _OVER):
                self._ended = True
            elif event.event == "end":
                await self._connection.lost(None)
            elif event.event == "update":
                update = read_answer(_json(event), Update, self._caller.url)
                if update.live or update.seq > after:
                    self._place.after = max(after, update.seq)
                    return update
        await self._connection.finish()
        raise StopAsyncIteration


@define(eq=False)
class NamespaceStream:
    """The updates of all runs that a filter selects, from now on: a context manager and iterator.

    The server keeps what happened last, so that a connection that was replaced goes on where the
    one before ended. Where the server does not know that place any more, that is told as an error,
    and the next read goes on with what happens from then on.
    """

    _caller: Caller
    _path: str
    _place: Place
    _connection: Connection = field(init=False)
    _missed: bool = field(default=False, init=False)

    async def __aenter__(self) -> Self:
        """Connect."""
        self._connection = Connection(self._caller, self._path, self._place)
        await self._connection.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Return the next update.

        Raises:
            Unavailable: the server cannot be reached, or updates may have been missed; reading
                again goes on.
        """
        try:
            while not self._missed:
                event = await self._connection.next()
                assert event is not None, "a namespace's stream has no end"
                if event.event == "end":
                    await self._connection.lost(None)
                elif event.event == "snapshot":
                    # How things are is told only where the place was not known.
                    self._missed = bool(_runs_in(event))
                elif event.event == "update":
                    update = read_answer(_json(event), Update, self._caller.url)
                    self._place.last_id = event.last_id
                    return update
        except BaseException:
            # The place is kept, so that the next read goes on there.
            await self._connection.aclose()
            raise
        # The connection stays, and what comes on it follows the picture without a gap.
        self._missed = False
        message = (
            f"the server at {self._caller.url} does not know any more where this stream was, so "
            "that updates may have been missed; look at the runs with list(), then read on"
        )
        raise Unavailable(message, details={"missed": True})


def _runs_in(snapshot: SentEvent) -> JsonValue:
    body = _json(snapshot)
    return body.get("runs") if isinstance(body, dict) else None
