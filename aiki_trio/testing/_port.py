"""What clients in a test speak to: whichever life of the runtime is there.

Handles outlast a restart, as they do with a server behind a network. A request that a kill left
without an answer is made again where that is safe: everything that only reads, everything that
names itself with a reference id. Otherwise it raises `Unavailable`, for it may have taken effect.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, cast

from attrs import define, field

from aiki_sdk import Unavailable
from aiki_sdk.protocol import (
    ClientPort,
    ControlRequest,
    EventReceipt,
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

from ._life import Caller

if TYPE_CHECKING:
    from aiki_sdk.protocol import ForkRequest

T = TypeVar("T")


class Serving(Protocol):
    """A runtime, as its clients see it."""

    def port_for(self, namespace: str) -> ClientPort:
        """Return what a client of a namespace speaks to."""
        ...


class OneLife(Protocol):
    """A runtime that may be killed."""

    @property
    def runtime(self) -> Serving:
        """The runtime."""
        ...

    def caller(self) -> Caller:
        """Return a block that ends early, without an error, when the runtime is killed."""
        ...


class Lives(Protocol):
    """Where the present life is to be had."""

    async def present(self) -> OneLife:
        """Return the life that takes requests; waits while there is none."""
        ...


@define(eq=False)
class OutlastingPort:
    """A `ClientPort` to the present life, whichever that is."""

    namespace: str
    lives: Lives

    async def _ask(self, act: Callable[[ClientPort], Awaitable[T]], *, again: bool = True) -> T:
        while True:
            life = await self.lives.present()
            with life.caller():
                return await act(life.runtime.port_for(self.namespace))
            if not again:
                message = (
                    "the runtime was killed before it answered, and the request may have taken "
                    "effect; give it a reference_id, so that it can be repeated safely"
                )
                raise Unavailable(message)

    async def start(self, request: StartRequest) -> StartResult:
        """Start a run; see `ClientPort.start`."""
        return await self._ask(
            lambda port: port.start(request), again=request.reference_id is not None
        )

    async def start_many(self, requests: Sequence[StartRequest]) -> Sequence[StartResult | Problem]:
        """Start many runs; see `ClientPort.start_many`."""
        named = all(request.reference_id is not None for request in requests)
        return await self._ask(lambda port: port.start_many(requests), again=named)

    async def get(self, run_id: str) -> RunInfo:
        """Return what is known of a run."""
        return await self._ask(lambda port: port.get(run_id))

    async def find(self, workflow: str, reference_id: str) -> RunInfo:
        """Return the run that holds a reference id now."""
        return await self._ask(lambda port: port.find(workflow, reference_id))

    async def list(self, query: RunQuery) -> RunPage:
        """Return a page of the runs that match."""
        return await self._ask(lambda port: port.list(query))

    async def count(self, query: RunQuery) -> int:
        """Count the runs that match."""
        return await self._ask(lambda port: port.count(query))

    async def journal(self, run_id: str, *, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return entries of a run's journal."""
        return await self._ask(lambda port: port.journal(run_id, after=after, limit=limit))

    async def result(self, run_id: str, *, wait_s: float | None) -> Outcome | None:
        """Wait for a run's end."""
        return await self._ask(lambda port: port.result(run_id, wait_s=wait_s))

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:
        """Acknowledge an event for a run."""
        return await self._ask(
            lambda port: port.send(run_id, request), again=request.reference_id is not None
        )

    async def send_many(
        self, run_ids: Sequence[str], request: SendRequest
    ) -> Sequence[EventReceipt | Problem]:
        """Send one event to many runs; see `ClientPort.send_many`."""
        return await self._ask(
            lambda port: port.send_many(run_ids, request), again=request.reference_id is not None
        )

    async def control_many(
        self, run_ids: Sequence[str], request: ControlRequest
    ) -> Sequence[Problem | None]:
        """Do one thing to many runs; repeating it changes nothing."""
        return await self._ask(lambda port: port.control_many(run_ids, request))

    async def fork(self, run_id: str, request: ForkRequest) -> StartResult:
        """Make a new run of what a run had recorded up to an entry."""
        return await self._ask(lambda port: port.fork(run_id, request), again=False)

    async def control(self, run_id: str, request: ControlRequest) -> None:
        """Do something to a run; repeating it changes nothing."""
        await self._ask(lambda port: port.control(run_id, request))

    def updates(self, run_id: str, *, after: int, wait_s: float | None = None) -> OneLifeUpdates:
        """Open the stream of a run's updates; it ends with the life, and may be opened again."""
        return OneLifeUpdates(self, run_id, after, wait_s)

    def watch(self, query: UpdateQuery) -> OneLifeWatch:
        """Open a stream of many runs' updates; a kill is told, and the next read goes on."""
        return OneLifeWatch(self, query)

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that are registered."""
        return await self._ask(lambda port: port.workflows())

    async def health(self) -> Health:
        """Return how the runtime is."""
        return await self._ask(lambda port: port.health())

    async def aclose(self) -> None:
        """Nothing to give back."""
        await self._ask(lambda port: port.aclose())


@define(eq=False)
class OneLifeUpdates:
    """A run's updates until the runtime is killed."""

    _port: OutlastingPort
    _run_id: str
    _after: int
    _wait_s: float | None
    _life: OneLife = field(init=False)
    _stream: AbstractAsyncContextManager[AsyncIterator[Update]] = field(init=False)
    _updates: AsyncIterator[Update] = field(init=False)

    async def __aenter__(self) -> Self:
        """Subscribe, at whichever life lives long enough for that."""
        while True:
            self._life = await self._port.lives.present()
            port = self._life.runtime.port_for(self._port.namespace)
            with self._life.caller():
                self._stream = port.updates(self._run_id, after=self._after, wait_s=self._wait_s)
                self._updates = await self._stream.__aenter__()
                return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Watch no more."""
        await self._stream.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Return the next update; ends with the run, the time, or the runtime's life."""
        with self._life.caller():
            return await self._updates.__anext__()
        raise StopAsyncIteration


@define(eq=False)
class OneLifeWatch:
    """The updates of many runs, one life after the other."""

    _port: OutlastingPort
    _query: UpdateQuery
    _life: OneLife = field(init=False)
    _stream: AbstractAsyncContextManager[AsyncIterator[Update]] = field(init=False)
    _updates: AsyncIterator[Update] = field(init=False)

    async def __aenter__(self) -> Self:
        """Subscribe, at whichever life lives long enough for that."""
        while True:
            self._life = await self._port.lives.present()
            with self._life.caller():
                port = self._life.runtime.port_for(self._port.namespace)
                self._stream = cast("WatchingPort", port).watch(self._query)
                self._updates = await self._stream.__aenter__()
                return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Watch no more."""
        await self._stream.__aexit__(kind, error, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """Return the next update.

        Raises:
            Unavailable: the runtime was killed, and what happened meanwhile was missed.
        """
        with self._life.caller():
            return await self._updates.__anext__()
        await self.__aenter__()
        message = "the runtime was killed, so that updates may have been missed; read on"
        raise Unavailable(message, details={"missed": True})
