"""A client's port behind a `PayloadCodec`: what goes to the server is sealed, what comes is opened.

Sealed are inputs, outputs, the data of events and questions, answers, published and recorded
values, heartbeat details, progress, and errors but for their type, code and whether to try again.
In the clear stay what a server works with: names, versions, labels, reference ids, reasons,
rejections, times, and hashes of inputs, which tell whether two inputs are equal.

Without a codec nothing of this is used. What was written before there was a codec is read as it is.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, cast

from attrs import define, evolve, field

from aiki_sdk._json import JsonValue
from aiki_sdk.payload import PayloadCodec, seal, unseal, unseal_error, unseal_within
from aiki_sdk.protocol import (
    ClientPort,
    ControlRequest,
    EventReceipt,
    ForkRequest,
    Health,
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
    UpdateQuery,
    WatchingPort,
    WorkflowInfo,
)


@define(eq=False)
class SealedPort:
    """A `ClientPort` that passes every payload through a codec."""

    _port: ClientPort
    _codec: PayloadCodec

    @property
    def namespace(self) -> str:
        """The namespace of the port behind."""
        return self._port.namespace

    async def start(self, request: StartRequest) -> StartResult:
        """Start a run on a sealed input."""
        return await self._port.start(self._start(request))

    async def start_many(self, requests: Sequence[StartRequest]) -> Sequence[StartResult | Problem]:
        """Start many runs on sealed inputs."""
        return await self._port.start_many([self._start(request) for request in requests])

    def _start(self, request: StartRequest) -> StartRequest:
        return evolve(request, input=seal(request.input, self._codec))

    async def get(self, run_id: str) -> RunInfo:
        """Return what is known of a run, opened."""
        return self._info(await self._port.get(run_id))

    async def find(self, workflow: str, reference_id: str) -> RunInfo:
        """Return the run that holds a reference id, opened."""
        return self._info(await self._port.find(workflow, reference_id))

    def _info(self, info: RunInfo) -> RunInfo:
        codec = self._codec
        return evolve(
            info,
            input=unseal(info.input, codec),
            output=unseal(info.output, codec),
            error=None if info.error is None else unseal_error(info.error, codec),
            values={key: unseal(value, codec) for key, value in info.values.items()},
        )

    async def list(self, query: RunQuery) -> RunPage:
        """Return a page of runs; summaries carry no payload."""
        return await self._port.list(query)

    async def count(self, query: RunQuery) -> int:
        """Count runs."""
        return await self._port.count(query)

    async def journal(self, run_id: str, *, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return entries, opened."""
        entries = await self._port.journal(run_id, after=after, limit=limit)
        return [evolve(entry, body=self._body(entry.body)) for entry in entries]

    def _body(self, body: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        return cast("Mapping[str, JsonValue]", unseal_within(dict(body), self._codec))

    async def result(self, run_id: str, *, wait_s: float | None) -> Outcome | None:
        """Wait for a run's end, and open what it ended with."""
        outcome = await self._port.result(run_id, wait_s=wait_s)
        if outcome is None:
            return None
        error = None if outcome.error is None else unseal_error(outcome.error, self._codec)
        return evolve(outcome, output=unseal(outcome.output, self._codec), error=error)

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:
        """Send sealed data."""
        return await self._port.send(run_id, self._send(request))

    async def send_many(
        self, run_ids: Sequence[str], request: SendRequest
    ) -> Sequence[EventReceipt | Problem]:
        """Send sealed data to many."""
        return await self._port.send_many(run_ids, self._send(request))

    def _send(self, request: SendRequest) -> SendRequest:
        return evolve(request, data=seal(request.data, self._codec))

    async def control(self, run_id: str, request: ControlRequest) -> None:
        """Do something to a run; a command carries no payload."""
        await self._port.control(run_id, request)

    async def control_many(
        self, run_ids: Sequence[str], request: ControlRequest
    ) -> Sequence[Problem | None]:
        """Do something to many runs."""
        return await self._port.control_many(run_ids, request)

    async def fork(self, run_id: str, request: ForkRequest) -> StartResult:
        """Fork with a sealed input and sealed results."""
        given = None
        if request.input is not None:
            given = cast("Mapping[str, JsonValue]", seal(dict(request.input), self._codec))
        overrides = {seq: seal(value, self._codec) for seq, value in request.overrides.items()}
        return await self._port.fork(run_id, evolve(request, input=given, overrides=overrides))

    def updates(
        self, run_id: str, *, after: int, wait_s: float | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
        """Open the stream of a run's updates; each is opened as it is read."""
        return _OpenedUpdates(self, self._port.updates(run_id, after=after, wait_s=wait_s))

    def watch(self, query: UpdateQuery) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
        """Open a stream of many runs' updates; each is opened as it is read."""
        watching = cast("WatchingPort", self._port)
        return _OpenedUpdates(self, watching.watch(query))

    def open_update(self, update: Update) -> Update:
        """Return an update, opened."""
        return update if update.body is None else evolve(update, body=self._body(update.body))

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that the server knows."""
        return await self._port.workflows()

    async def health(self) -> Health:
        """Return how the server is."""
        return await self._port.health()

    async def aclose(self) -> None:
        """Close the port behind."""
        await self._port.aclose()


@define(eq=False)
class _OpenedUpdates:
    """A stream of updates and the iterator that it gives."""

    _owner: SealedPort
    _context: AbstractAsyncContextManager[AsyncIterator[Update]]
    _stream: AsyncIterator[Update] = field(init=False)

    async def __aenter__(self) -> Self:
        self._stream = await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._context.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        return self._owner.open_update(await anext(self._stream))
