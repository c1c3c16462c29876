"""Handlers that say something to runs: events, questions, commands, and these to many at once."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from aiki_sdk import InvalidRequest
from aiki_sdk.protocol import (
    ControlCommand,
    ControlRequest,
    EventReceipt,
    Problem,
    SendRequest,
)

from ._bodies import (
    BulkAnswer,
    BulkAnswers,
    BulkBody,
    EmptyBody,
    ReasonBody,
    SendBody,
    WakeBody,
)
from ._call import Call, Reply, json_reply
from ._problems import problem_of
from ._routes import Handler


async def send_event(call: Call) -> Reply:
    """Acknowledge an event for a run."""
    return await _send(call, question=False)


async def ask_question(call: Call) -> Reply:
    """Acknowledge a question for a run; the answer is in its journal."""
    return await _send(call, question=True)


async def _send(call: Call, *, question: bool) -> Reply:
    body = call.read(SendBody, fill={})
    request = SendRequest(
        event=call.path["name"],
        data=body.data,
        reference_id=call.idempotent(body.reference_id),
        question=question,
    )
    return json_reply(await call.port.send(call.run_id, request))


def control_body(command: ControlCommand) -> type[ReasonBody | WakeBody | EmptyBody]:
    """Return what the body of a command is."""
    match command:
        case ControlCommand.CANCEL | ControlCommand.TERMINATE | ControlCommand.PAUSE:
            return ReasonBody
        case ControlCommand.WAKE:
            return WakeBody
        case ControlCommand.RESUME | ControlCommand.REQUEUE | ControlCommand.RETRY:
            return EmptyBody


def control(command: ControlCommand) -> Handler:
    """Return the handler of one command."""
    body_type = control_body(command)

    async def handle(call: Call) -> Reply:
        body = call.read(body_type, fill={})
        request = ControlRequest(
            command=command,
            reason=body.reason if isinstance(body, ReasonBody) else None,
            sleep=body.sleep if isinstance(body, WakeBody) else None,
        )
        await call.port.control(call.run_id, request)
        return Reply(204)

    return handle


async def bulk(call: Call) -> Reply:
    """Do one thing to many runs; each is done or not by itself."""
    body = call.read(BulkBody)
    if (body.control is None) == (body.event is None):
        message = "body is not valid: give exactly one of control and event"
        raise InvalidRequest(message)
    run_ids, cursor = await _selected(call, body)
    answers: Sequence[EventReceipt | Problem | None]
    if body.event is not None:
        event = evolve(body.event, reference_id=call.idempotent(body.event.reference_id))
        answers = await call.port.send_many(run_ids, event)
    else:
        assert body.control is not None, "one of the two is given"
        answers = await call.port.control_many(run_ids, body.control)
    results = tuple(map(_bulk_answer, run_ids, answers))
    return json_reply(BulkAnswers(results, cursor))


async def _selected(call: Call, body: BulkBody) -> tuple[Sequence[str], str | None]:
    if (body.run_ids is None) == (body.filter is None):
        message = "body is not valid: give exactly one of run_ids and filter"
        raise InvalidRequest(message)
    if body.run_ids is not None:
        return body.run_ids, None
    assert body.filter is not None, "one of the two is given"
    page = await call.port.list(body.filter)
    return [run.id for run in page.runs], page.cursor


def _bulk_answer(run_id: str, answer: EventReceipt | Problem | None) -> BulkAnswer:
    if isinstance(answer, Problem):
        return BulkAnswer(run_id=run_id, ok=False, error=problem_of(answer.to_error()))
    return BulkAnswer(run_id=run_id, ok=True, receipt=answer)
