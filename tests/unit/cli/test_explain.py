"""The paragraph about a run says where it is, what it waits for, and what moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from aiki_sdk import ErrorInfo, JournalEntry, RunInfo, RunStatus, WaitInfo, WaitKind
from aiki_trio.cli._explain import Situation, explanation

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEGAN = NOW - timedelta(hours=3)
INFO = RunInfo(
    id="run_1",
    namespace="default",
    workflow="order",
    version="1.0.0",
    status=RunStatus.RUNNING,
    reference_id="o-1",
    created_at=BEGAN,
    seq=1,
)


def told(*kinds: str, served: bool = True, **changes: Any) -> str:
    """Explain a run with some entries, all of them three hours old."""
    entries = [JournalEntry(seq, BEGAN, kind, {}) for seq, kind in enumerate(kinds, start=1)]
    return explanation(Situation(evolve(INFO, **changes), entries, NOW, served))


def waiting(kind: WaitKind, name: str, due: timedelta | None = None) -> WaitInfo:
    """Return a wait that began three hours ago."""
    return WaitInfo(kind=kind, name=name, since=BEGAN, due_at=None if due is None else NOW + due)


def test_a_wait_for_an_event_says_since_until_and_how_to_send_it() -> None:
    text = told(
        "run-created",
        "run-parked",
        status=RunStatus.AWAITING_EVENT,
        waits=(waiting(WaitKind.EVENT, "paid", timedelta(days=2)),),
    )
    assert "order 1.0.0, reference 'o-1'" in text
    assert "for the event 'paid' since 2026-03-01 09:00:00 UTC (3 h ago)" in text
    assert "giving up at 2026-03-03 12:00:00 UTC (in 2 d)" in text
    assert "aiki runs send run_1 paid --data JSON" in text


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        (waiting(WaitKind.SLEEP, "rest", timedelta(hours=1)), "aiki runs wake run_1 --sleep rest"),
        (waiting(WaitKind.CHILD, "run_2"), "aiki explain run_2"),
        (waiting(WaitKind.RETRY, "charge", timedelta(minutes=1)), "next attempt of 'charge'"),
        (waiting(WaitKind.SLEEP, "late", -timedelta(minutes=1)), "has passed 1 min ago"),
    ],
)
def test_each_wait_says_what_moves_it(wait: WaitInfo, words: str) -> None:
    assert words in told("run-created", status=RunStatus.SLEEPING, waits=(wait,))


@pytest.mark.parametrize(
    ("status", "kind", "changes", "words"),
    [
        ("scheduled", "run-created", {"due_at": NOW + timedelta(days=1)}, "is to begin at"),
        ("queued", "run-queued", {}, "a worker that has workflow 'order' in version '1.0.0'"),
        ("running", "run-claimed", {"worker_id": "wrk_1"}, "executed by wrk_1 since 2026-03-01"),
        ("paused", "run-paused", {"reason": "audit"}, "because 'audit'"),
        ("paused", "run-paused", {}, "aiki runs resume run_1"),
        ("stalled", "run-stalled", {"reason": "no worker"}, "aiki runs requeue run_1"),
    ],
)
def test_each_status_says_what_moves_the_run(
    status: str, kind: str, changes: dict[str, Any], words: str
) -> None:
    assert words in told("run-created", kind, status=RunStatus(status), **changes)


def test_where_no_runtime_has_the_database_it_is_said() -> None:
    assert "No runtime has the database open" in told(
        "run-queued", status=RunStatus.QUEUED, served=False
    )
    assert "No runtime" not in told("run-queued", status=RunStatus.QUEUED)


@pytest.mark.parametrize(
    ("status", "changes", "words"),
    [
        ("completed", {"output": {"a": 1}}, 'returned {"a": 1}. Nothing moves it any more.'),
        ("failed", {"error": ErrorInfo("ValueError", "bad")}, "aiki runs retry run_1"),
        ("cancelled", {"reason": "gone"}, "was cancelled at 2026-03-01 12:00:00 UTC"),
        ("cancelled", {"terminated": True}, "was terminated"),
        ("completed", {"continued_as": "run_2"}, "aiki explain run_2"),
    ],
)
def test_an_end_is_told_with_its_outcome(status: str, changes: dict[str, Any], words: str) -> None:
    text = told("run-created", "run-ended", status=RunStatus(status), ended_at=NOW, **changes)
    assert words in text
