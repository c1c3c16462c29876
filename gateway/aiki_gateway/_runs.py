"""Handlers about runs: start, find, list, history, result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import evolve

from aiki_sdk import InvalidRequest, JsonValue
from aiki_sdk._canonical import input_hash
from aiki_sdk.protocol import (
    ForkRequest,
    Problem,
    RunQuery,
    RunStatus,
    StartRequest,
    StartResult,
)

from ._bodies import Count, Journal, Pending, StartAnswer, StartAnswers, StartBatch
from ._call import Call, Reply, json_reply
from ._fields import checked, refuse_unknown
from ._problems import problem_of

NO_HASH: Final = "0" * 64
"""Stands in for a hash that the client left out, until it is computed."""


def with_hash(request: StartRequest) -> StartRequest:
    """Compute the hash of the input if the client left it out."""
    if request.input_hash != NO_HASH:
        return request
    return evolve(request, input_hash=input_hash(request.input))


async def start_run(call: Call) -> Reply:
    """Start a run, or find the one that the reference id names."""
    request = call.read(StartRequest, fill={"input_hash": NO_HASH})
    request = _as_keyed(call, with_hash(request))
    return _started(await call.port.start(request))


def _as_keyed(call: Call, request: StartRequest, index: int | None = None) -> StartRequest:
    """Give a start that has no reference id the one that its idempotency key makes."""
    reference_id = call.idempotent(request.reference_id, index)
    if reference_id == request.reference_id:
        return request
    return evolve(request, reference_id=reference_id)


def _started(result: StartResult) -> Reply:
    status = 201 if result.created else 200
    return json_reply(result, status, location=f"/v1/runs/{result.run_id}")


async def start_batch(call: Call) -> Reply:
    """Start many runs; each succeeds or fails by itself."""
    body = call.body
    if isinstance(body, dict) and isinstance(runs := body.get("runs"), list):
        refuse_unknown(body, StartBatch, "body")
        filled: list[JsonValue] = [
            {"input_hash": NO_HASH, **run} if isinstance(run, dict) else run for run in runs
        ]
        batch = checked({"runs": filled}, StartBatch, "body")
    else:
        batch = call.read(StartBatch)
    requests = [_as_keyed(call, with_hash(run), index) for index, run in enumerate(batch.runs)]
    answers = await call.port.start_many(requests)
    return json_reply(StartAnswers(tuple(_start_answer(answer) for answer in answers)))


def _start_answer(answer: StartResult | Problem) -> StartAnswer:
    if isinstance(answer, StartResult):
        return StartAnswer(result=answer)
    return StartAnswer(error=problem_of(answer.to_error()))


def run_query(call: Call) -> RunQuery:
    """Return what the filters of a query select.

    Raises:
        InvalidRequest: a filter is not valid; the message names it.
    """
    return RunQuery(
        status=tuple(RunStatus(word) for word in call.texts("status")),
        workflow=call.text("workflow"),
        version=call.text("version"),
        reference_id=call.text("reference_id"),
        parent_id=call.text("parent_id"),
        labels=_labels(call.texts("label")),
        created_after=call.time("created_after"),
        created_before=call.time("created_before"),
        query=call.text("query"),
        undeliverable=call.flag("undeliverable"),
        limit=call.integer("limit", 50),
        cursor=call.text("cursor"),
    )


def _labels(given: list[str]) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    for pair in given:
        name, colon, value = pair.partition(":")
        if not colon:
            message = f"label={pair[:100]!r} is not valid: write name:value"
            raise InvalidRequest(message)
        if labels.setdefault(name, value) != value:
            message = f"label {name[:100]!r} is given with two values; no run has both"
            raise InvalidRequest(message)
    return labels


async def list_runs(call: Call) -> Reply:
    """Return a page of the runs that match, the newest first."""
    return json_reply(await call.port.list(run_query(call)))


async def count_runs(call: Call) -> Reply:
    """Count the runs that match."""
    return json_reply(Count(await call.port.count(run_query(call))))


async def find_run(call: Call) -> Reply:
    """Return the run that holds a reference id."""
    workflow, reference_id = call.text("workflow"), call.text("reference_id")
    assert workflow is not None, "the parameter is required"
    assert reference_id is not None, "the parameter is required"
    return json_reply(await call.port.find(workflow, reference_id))


async def get_run(call: Call) -> Reply:
    """Return what is known of a run."""
    return json_reply(await call.port.get(call.run_id))


async def journal(call: Call) -> Reply:
    """Return a part of a run's history."""
    entries = await call.port.journal(
        call.run_id, after=call.integer("after", 0), limit=call.integer("limit", 500)
    )
    return json_reply(Journal(tuple(entries)))


async def result(call: Call) -> Reply:
    """Wait for a run's end; 202 if it has not come in time."""
    wait_s = min(call.number("wait", 0.0), call.settings.result_wait_s_max)
    port = call.port
    outcome = await port.result(call.run_id, wait_s=wait_s)
    if outcome is None:
        info = await port.get(call.run_id)
        if not info.status.terminal:
            return json_reply(Pending(info.status), 202)
        # It ended between the two questions.
        outcome = await port.result(call.run_id, wait_s=0)
        assert outcome is not None, f"run {call.run_id} has ended"
    return json_reply(outcome)


async def fork(call: Call) -> Reply:
    """Make a new run of what a run had recorded up to an entry."""
    body = call.body
    fill: dict[str, JsonValue] = {}
    if isinstance(body, dict) and body.get("input") is not None and "input_hash" not in body:
        fill["input_hash"] = input_hash(body["input"])
    request = call.read(ForkRequest, fill=fill) if call.has_body else call.read(ForkRequest)
    return _started(await call.port.fork(call.run_id, request))
