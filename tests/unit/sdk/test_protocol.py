"""The wire values: they survive JSON, and requests that exist are well-formed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import evolve

from aiki_sdk import ErrorInfo, InvalidRequest, PayloadConverter, ReferenceConflict, RunFailed
from aiki_sdk.protocol import (
    ControlCommand,
    ControlRequest,
    EventReceipt,
    Health,
    HealthStatus,
    JournalEntry,
    OnConflict,
    Outcome,
    Priority,
    Problem,
    RunInfo,
    RunPage,
    RunQuery,
    RunStatus,
    RunSummary,
    SendRequest,
    StartRequest,
    StartResult,
    TreeNode,
    Update,
    WaitInfo,
    WaitKind,
    WorkflowInfo,
)

NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
HASH = "0123456789abcdef" * 4
ERROR = ErrorInfo("ValueError", "bad", "trace", ErrorInfo("KeyError", "k"), details={"n": [1]})
SUMMARY = RunSummary(
    id="run_1",
    namespace="default",
    workflow="order-processing",
    version="1.0.0",
    status=RunStatus.SLEEPING,
    priority=Priority.HIGH,
    labels={"a": "b"},
    created_at=NOW,
    due_at=NOW + timedelta(days=14),
)
INFO = RunInfo(
    id="run_1",
    namespace="default",
    workflow="order-processing",
    version="1.0.0",
    status=RunStatus.AWAITING_EVENT,
    created_at=NOW,
    waits=(WaitInfo(kind=WaitKind.EVENT, name="paid", since=NOW),),
    input={"order": {"id": "o-1", "amount": None}},
    error=ERROR,
    seq=7,
    children=("run_2",),
)
START = StartRequest(
    workflow="order-processing",
    version="1.0.0",
    input={"order": 1},
    input_hash=HASH,
    reference_id="r-1",
    on_conflict=OnConflict.RETURN_EXISTING,
    at=NOW,
    priority=Priority.LOW,
    pool="gpu",
    retry={"kind": "never", "max_attempts": 1},
    timeout_s=1.5,
    labels={"a": "b"},
)
VALUES = [
    SUMMARY,
    INFO,
    RunPage((SUMMARY,), "next"),
    JournalEntry(3, NOW, "task-succeeded", {"output": [1, None]}),
    Update(run_id="run_1", seq=3, at=NOW, kind="run-queued", status=RunStatus.QUEUED, workflow="w"),
    Outcome(status=RunStatus.FAILED, error=ERROR),
    Outcome(status=RunStatus.COMPLETED, output=[1, {"a": 2.5}], continued_as="run_2"),
    Outcome(status=RunStatus.CANCELLED, reason="why", terminated=True),
    StartResult("run_1", created=False),
    Problem("not-found", "no run", {"id": "run_1"}),
    EventReceipt(None, duplicate=True),
    WorkflowInfo("greet", "1.0.0", ("paid",)),
    Health(HealthStatus.DEGRADED, {"redis": "refused"}, "0.1.0"),
    TreeNode(
        name="runtime",
        kind="supervisor",
        path="/runtime",
        state="running",
        children=(TreeNode(name="hub", kind="actor", path="/runtime/hub", state="idle"),),
    ),
    START,
    SendRequest(event="paid", data={"amount": 1}, reference_id="txn-1"),
    ControlRequest(command=ControlCommand.WAKE, sleep="cool-off"),
    RunQuery(status=(RunStatus.FAILED,), labels={"a": "b"}, created_after=NOW, limit=10),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_every_wire_value_survives_json(value: object) -> None:
    converter = PayloadConverter()
    converter.register(ErrorInfo, ErrorInfo.to_json, _error_from_json)

    json = converter.to_json(value, type(value))

    assert converter.from_json(json, type(value)) == value


def _error_from_json(json: Any) -> ErrorInfo:
    return ErrorInfo.from_json(json)


def test_an_error_survives_as_a_problem() -> None:
    error = ReferenceConflict("reference 'r' names run_1", details={"run_id": "run_1"})
    failed = RunFailed(ERROR, run_id="run_1")

    again = Problem.from_error(error).to_error()
    failed_again = Problem.from_error(failed).to_error()

    assert type(again) is ReferenceConflict
    assert (again.message, again.details) == (error.message, error.details)
    assert isinstance(failed_again, RunFailed)
    assert failed_again.error == ERROR


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"workflow": "no spaces"}, "workflow name"),
        ({"version": "a b"}, "workflow version"),
        ({"input_hash": "abc"}, "input_hash='abc'"),
        ({"reference_id": ""}, "reference_id=''"),
        ({"delay_s": -1.0, "at": None}, r"delay=-1\.0"),
        ({"delay_s": 1.0}, "delay is given too"),
        ({"at": datetime(2026, 1, 1)}, "aware"),  # noqa: DTZ001
        ({"pool": "a:b"}, "pool name"),
        ({"retry": 3}, "retry=3"),
        ({"timeout_s": 0.0}, r"timeout=0\.0"),
        ({"labels": {"a": ""}}, r"labels\['a'\]=''"),
    ],
)
def test_a_malformed_start_cannot_be_made(change: dict[str, Any], complaint: str) -> None:
    """What came over the network is refused by the same rules as at the client's call."""
    with pytest.raises(InvalidRequest, match=complaint):
        evolve(START, **change)


@pytest.mark.parametrize(
    "command", [ControlCommand.RESUME, ControlCommand.WAKE, ControlCommand.RETRY]
)
def test_a_reason_goes_only_where_one_is_kept(command: ControlCommand) -> None:
    with pytest.raises(InvalidRequest, match=f"{command} takes none"):
        ControlRequest(command=command, reason="because")


def test_a_sleep_is_named_only_to_wake_it() -> None:
    with pytest.raises(InvalidRequest, match=r"sleep='nap' .*cancel takes none"):
        ControlRequest(command=ControlCommand.CANCEL, sleep="nap")


@pytest.mark.parametrize("limit", [0, 501, -1])
def test_a_page_is_bounded(limit: int) -> None:
    with pytest.raises(InvalidRequest, match=f"limit={limit} .*1 to 500"):
        RunQuery(limit=limit)


def test_times_of_another_zone_are_well_formed() -> None:
    """Where they came from does not matter; the instant does."""
    zone = timezone(timedelta(hours=-3))

    assert evolve(START, at=NOW.astimezone(zone)) == START
