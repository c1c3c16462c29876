"""Start or send: an event for whichever run holds a reference id, started if there is none.

Nothing is locked between looking and sending: a run that ends in between refuses the event, and the
next attempt starts another. What makes the whole repeatable is the event's own reference id, which
a run remembers beyond its end.
"""

from abc import ABC, abstractmethod
from typing import Any, Final, TypeVar, Unpack, cast, overload

from aiki_sdk._errors import InvalidRequest, NotFound, ReferenceConflict, RunEnded
from aiki_sdk._event import Event
from aiki_sdk._workflow import AnyWorkflow, Workflow
from aiki_sdk.client._handle import RunHandle
from aiki_sdk.client._options import StartKwargs, StartOptions, StartSpec
from aiki_sdk.client._startable import (
    Startable0,
    Startable1,
    Startable2,
    Startable3,
    Startable4,
)
from aiki_sdk.protocol import ClientPort, OnConflict, SendRequest

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")

SEND_ATTEMPTS_MAX: Final = 5
"""How often `send_or_start` meets a run that ends before it gets the event, until it gives up."""


class StartOrSend(ABC):
    """The part of a client that speaks to whichever run there is."""

    __slots__ = ()

    _port: ClientPort

    @abstractmethod
    async def _start(self, spec: StartSpec[Any]) -> RunHandle[Any]: ...

    @abstractmethod
    def _handle(self, run_id: str, code: AnyWorkflow | None) -> RunHandle[Any]: ...

    @overload
    async def send_or_start(
        self,
        workflow: Startable0[R],
        args: tuple[()],
        event: Event[E],
        data: E,
        *,
        event_reference_id: str | None = None,
        **options: Unpack[StartKwargs],
    ) -> RunHandle[R]: ...

    @overload
    async def send_or_start(
        self,
        workflow: Startable1[A, R],
        args: tuple[A],
        event: Event[E],
        data: E,
        *,
        event_reference_id: str | None = None,
        **options: Unpack[StartKwargs],
    ) -> RunHandle[R]: ...

    @overload
    async def send_or_start(
        self,
        workflow: Startable2[A, B, R],
        args: tuple[A, B],
        event: Event[E],
        data: E,
        *,
        event_reference_id: str | None = None,
        **options: Unpack[StartKwargs],
    ) -> RunHandle[R]: ...

    @overload
    async def send_or_start(
        self,
        workflow: Startable3[A, B, C, R],
        args: tuple[A, B, C],
        event: Event[E],
        data: E,
        *,
        event_reference_id: str | None = None,
        **options: Unpack[StartKwargs],
    ) -> RunHandle[R]: ...

    @overload
    async def send_or_start(
        self,
        workflow: Startable4[A, B, C, D, R],
        args: tuple[A, B, C, D],
        event: Event[E],
        data: E,
        *,
        event_reference_id: str | None = None,
        **options: Unpack[StartKwargs],
    ) -> RunHandle[R]: ...

    async def send_or_start(
        self,
        workflow: Any,
        args: tuple[Any, ...],
        event: Event[Any],
        data: object,
        *,
        event_reference_id: str | None = None,
        **options: Unpack[StartKwargs],
    ) -> RunHandle[Any]:
        """Send an event to the run that holds a reference id, starting one if none is alive.

        Args:
            workflow: what to start.
            args: its arguments, as a tuple.
            event: what to send.
            data: what the event carries.
            event_reference_id: your own name for this sending. The run that holds the reference id
                takes an event of this name once, also after it has ended; so the whole call can be
                repeated safely.
            options: those of `Client.start`, `on_conflict` aside; `reference_id` is needed.

        Returns:
            A handle on the run that has the event.

        Raises:
            InvalidRequest: there is no reference id, `on_conflict` was given, or the event is none.
            RunEnded: every run that was found or started ended before it got the event.
        """
        if not isinstance(cast("object", event), Event):
            message = f"event={event!r} is not valid: pass an Event"
            raise InvalidRequest(message)
        spec = _spec(workflow, args, options)
        name = cast("AnyWorkflow", workflow).name
        reference_id = cast("str", spec.options.reference_id)
        request = SendRequest(
            event=event.name, data=event.encode(data), reference_id=event_reference_id
        )
        held = await self._holder(name, reference_id)
        attempt = 0
        while True:
            run_id = held or await self._start_or_find(spec, name, reference_id)
            try:
                await self._port.send(run_id, request)
            except RunEnded:
                attempt += 1
                if attempt == SEND_ATTEMPTS_MAX:
                    raise
                held = None
            else:
                return self._handle(run_id, cast("AnyWorkflow", workflow))

    async def _holder(self, workflow: str, reference_id: str) -> str | None:
        try:
            return (await self._port.find(workflow, reference_id)).id
        except NotFound:
            return None

    async def _start_or_find(self, spec: StartSpec[Any], workflow: str, reference_id: str) -> str:
        try:
            return (await self._start(spec)).id
        except ReferenceConflict:
            # A live run with other arguments: it is the one that is meant.
            return (await self._port.find(workflow, reference_id)).id


def _spec(workflow: object, args: tuple[Any, ...], options: StartKwargs) -> StartSpec[Any]:
    if not isinstance(workflow, Workflow):
        message = f"workflow={workflow!r} is not valid: pass a @workflow function"
        raise InvalidRequest(message)
    if not isinstance(cast("object", args), tuple):
        message = f"args={args!r} is not valid: pass the workflow's arguments as a tuple"
        raise InvalidRequest(message)
    if options.get("reference_id") is None:
        message = "reference_id=None is not valid: say which run is meant"
        raise InvalidRequest(message)
    if "on_conflict" in options:
        message = (
            f"on_conflict={options['on_conflict']!r} is not valid here: a live run gets the event, "
            "an ended one is started again; leave it out"
        )
        raise InvalidRequest(message)
    options["on_conflict"] = OnConflict.RESTART_IF_ENDED
    code = cast("AnyWorkflow", workflow)
    return StartSpec(code, args, {}, StartOptions(**options))
