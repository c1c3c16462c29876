"""One thing said to many runs: an event, or a command, to runs given by ids or by a filter.

Runs are read by the page and told by the batch; what became of each is returned, and one that
fails never holds up the others. A filter that restricts nothing is refused: telling every run of a
namespace something must be meant, and is then said with `status=`.
"""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias, TypeVar, Unpack, cast, overload

from attrs import evolve, frozen

from aiki_sdk._errors import AikiError, InvalidRequest, NotFound
from aiki_sdk._event import Event
from aiki_sdk._json import JsonValue
from aiki_sdk._workflow import AnyWorkflow
from aiki_sdk.client._run_list import RunFilters, run_query, workflow_name
from aiki_sdk.payload import encode_payload
from aiki_sdk.protocol import (
    BATCH_MAX,
    PAGE_SIZE_MAX,
    ClientPort,
    ControlCommand,
    ControlRequest,
    EventReceipt,
    Problem,
    RunQuery,
    RunStatus,
    SendRequest,
)
from aiki_sdk.protocol._requests import check_word

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")

LIVE: Final = tuple(status for status in RunStatus if not status.terminal)
_MEANT: Final = {
    ControlCommand.RETRY: (RunStatus.FAILED,),
    ControlCommand.REQUEUE: (RunStatus.STALLED,),
    ControlCommand.RESUME: (RunStatus.PAUSED,),
    ControlCommand.WAKE: (RunStatus.SLEEPING,),
}
"""The runs that a command over a filter without statuses is for; else the live ones."""


@frozen(kw_only=True)
class BulkOutcome:
    """What became of one run of many.

    Attributes:
        run_id: the run; None if a reference id names none.
        reference_id: the reference id by which it was meant, if it was.
        receipt: of the event, if one was sent.
        error: why nothing was done; None: it was.
    """

    run_id: str | None
    reference_id: str | None = None
    receipt: EventReceipt | None = None
    error: AikiError | None = None

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.error is None


Outcomes: TypeAlias = list[BulkOutcome]


class ManyRuns:
    """The part of a client that speaks to many runs."""

    __slots__ = ()

    _port: ClientPort

    @overload
    async def multicast(
        self,
        event: Event[None],
        *,
        run_ids: Sequence[str] | None = None,
        reference_ids: tuple[AnyWorkflow | str, Sequence[str]] | None = None,
        event_reference_id: str | None = None,
        **filters: Unpack[RunFilters],
    ) -> Outcomes: ...

    @overload
    async def multicast(
        self,
        event: Event[E],
        data: E,
        *,
        run_ids: Sequence[str] | None = None,
        reference_ids: tuple[AnyWorkflow | str, Sequence[str]] | None = None,
        event_reference_id: str | None = None,
        **filters: Unpack[RunFilters],
    ) -> Outcomes: ...

    @overload
    async def multicast(
        self,
        event: str,
        data: object = None,
        *,
        run_ids: Sequence[str] | None = None,
        reference_ids: tuple[AnyWorkflow | str, Sequence[str]] | None = None,
        event_reference_id: str | None = None,
        **filters: Unpack[RunFilters],
    ) -> Outcomes: ...

    async def multicast(
        self,
        event: Event[Any] | str,
        data: object = None,
        *,
        run_ids: Sequence[str] | None = None,
        reference_ids: tuple[AnyWorkflow | str, Sequence[str]] | None = None,
        event_reference_id: str | None = None,
        **filters: Unpack[RunFilters],
    ) -> Outcomes:
        """Send one event to many runs: given by ids, by reference ids, or by a filter.

        Args:
            event: the event, or its name.
            data: what it carries.
            run_ids: to these runs.
            reference_ids: to the runs of a workflow that hold these reference ids now.
            event_reference_id: your own name for this sending; each run takes it once, so that the
                whole can be repeated safely.
            filters: to the runs that match, as in `Client.list`. Without a `status`: to the live
                ones.

        Returns:
            What became of each run; for ids and reference ids in their order.

        Raises:
            InvalidRequest: not exactly one of ids, reference ids and filter was given.
        """
        request = _event_request(event, data, event_reference_id)
        ways = [way for way in (run_ids, reference_ids, _meant_by(filters)) if way is not None]
        if len(ways) != 1:
            message = (
                f"multicast of event {request.event!r} was given {len(ways)} of run_ids, "
                "reference_ids and a filter; pass exactly one"
            )
            raise InvalidRequest(message)
        if reference_ids is not None:
            return await self._send_by_reference(request, *reference_ids)
        outcomes: Outcomes = []
        async with aclosing(self._batches(run_ids, filters, LIVE)) as batches:
            async for batch in batches:
                outcomes += await self._send_batch(request, batch)
        return outcomes

    async def bulk(
        self,
        command: ControlCommand | str,
        *,
        reason: str | None = None,
        run_ids: Sequence[str] | None = None,
        **filters: Unpack[RunFilters],
    ) -> Outcomes:
        """Do one thing to many runs: `await client.bulk("cancel", workflow=orders, reason="…")`.

        Args:
            command: `cancel`, `terminate`, `pause`, `resume`, `wake`, `requeue` or `retry`.
            reason: for `cancel`, `terminate` and `pause`.
            run_ids: to these runs, instead of a filter.
            filters: to the runs that match, as in `Client.list`. Without a `status`: to those that
                the command is for (failed ones for `retry`, stalled ones for `requeue`, sleeping
                ones for `wake`, paused ones for `resume`, live ones for the rest).

        Returns:
            What became of each run; a run that changed on the way may have refused.

        Raises:
            InvalidRequest: there is no such command, or not exactly one of ids and filter.
        """
        word = check_word("command", command, ControlCommand)
        request = ControlRequest(command=word, reason=reason)
        if (run_ids is None) == (_meant_by(filters) is None):
            message = f"bulk({word}) was given no runs: pass either run_ids= or a filter"
            raise InvalidRequest(message)
        outcomes: Outcomes = []
        async with aclosing(self._batches(run_ids, filters, _MEANT.get(word, LIVE))) as batches:
            async for batch in batches:
                answers = await self._port.control_many(batch, request)
                for run_id, problem in zip(batch, answers, strict=True):
                    error = None if problem is None else problem.to_error()
                    outcomes.append(BulkOutcome(run_id=run_id, error=error))
        return outcomes

    async def _batches(
        self, run_ids: Sequence[str] | None, filters: RunFilters, meant: tuple[RunStatus, ...]
    ) -> AsyncGenerator[Sequence[str]]:
        """Yield the runs in batches; a run that leaves the filter meanwhile moves no other."""
        if run_ids is not None:
            ids = _checked_ids("run_ids", run_ids)
            for first in range(0, len(ids), BATCH_MAX):
                yield ids[first : first + BATCH_MAX]
            return
        whole = evolve(run_query(filters), limit=PAGE_SIZE_MAX)
        query: RunQuery | None = whole if whole.status else evolve(whole, status=meant)
        while query is not None:
            page = await self._port.list(query)
            if page.runs:
                yield [row.id for row in page.runs]
            query = None if page.cursor is None else evolve(query, cursor=page.cursor)

    async def _send_batch(self, request: SendRequest, run_ids: Sequence[str]) -> Outcomes:
        answers = await self._port.send_many(run_ids, request)
        return [
            BulkOutcome(run_id=run_id, error=answer.to_error())
            if isinstance(answer, Problem)
            else BulkOutcome(run_id=run_id, receipt=answer)
            for run_id, answer in zip(run_ids, answers, strict=True)
        ]

    async def _send_by_reference(
        self, request: SendRequest, workflow: AnyWorkflow | str, reference_ids: Iterable[str]
    ) -> Outcomes:
        name = workflow_name(workflow)
        if name is None:
            message = (
                "reference_ids=(None, …) is not valid: pass the workflow and the reference ids"
            )
            raise InvalidRequest(message)
        outcomes: Outcomes = []
        for reference_id in _checked_ids("reference_ids", reference_ids):
            try:
                run_id = (await self._port.find(name, reference_id)).id
            except NotFound as error:
                outcomes.append(BulkOutcome(run_id=None, reference_id=reference_id, error=error))
            else:
                (outcome,) = await self._send_batch(request, [run_id])
                outcomes.append(evolve(outcome, reference_id=reference_id))
        return outcomes


def _meant_by(filters: RunFilters) -> RunFilters | None:
    """Return filters that restrict something; those that were given as None do not."""
    return None if run_query(filters) == RunQuery() else filters


def _checked_ids(name: str, ids: object) -> Sequence[str]:
    """Return ids, of which a single one is none: its characters would be taken for them."""
    if isinstance(ids, Sequence) and not isinstance(ids, str | bytes):
        return cast("Sequence[str]", ids)
    message = f"{name}={ids!r} is not valid: pass several ids, as a list or tuple"
    raise InvalidRequest(message)


def _event_request(event: Event[Any] | str, data: object, reference_id: str | None) -> SendRequest:
    if isinstance(event, str):
        body: JsonValue = encode_payload(data, what=f"event {event!r}")
        return SendRequest(event=event, data=body, reference_id=reference_id)
    if not isinstance(cast("object", event), Event):
        message = f"event={event!r} is not valid: pass an Event or the name of one"
        raise InvalidRequest(message)
    return SendRequest(event=event.name, data=event.encode(data), reference_id=reference_id)
