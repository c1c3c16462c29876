"""`crash_everywhere`: every write is a place to die, and none of them may show in the result."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from aiki_sdk import InvalidRequest, Run, workflow
from aiki_sdk.protocol import RunStatus
from aiki_trio.testing import Aiki, OutcomeDiffers, crash_everywhere

from .testkit_workflows import charge, failing, fan_out, order, paid, trial


@pytest.mark.parametrize("storage", ["memory://", "sqlite://", "sqlite:///runs.db"])
def test_a_workflow_with_everything_ends_the_same_wherever_it_is_killed(storage: str) -> None:
    report = crash_everywhere(
        order, 5, events=[(timedelta(days=100), paid, "txn")], storage=storage
    )
    assert report.outcome.output == "invoice of charge-5, txn, charge-6"
    assert report.writes >= 12
    assert report.kills >= 2 * report.writes - 2


def test_branches_end_the_same_wherever_they_are_killed() -> None:
    report = crash_everywhere(fan_out, 3)
    assert report.outcome.output == ["charge-0", "charge-1", "charge-2"]


def test_a_failure_ends_the_same_wherever_it_is_killed() -> None:
    """The error is part of the outcome: type and message."""
    report = crash_everywhere(failing, setup=lambda aiki: aiki.mock(charge, lambda amount: 1 / 0))
    assert report.outcome.status is RunStatus.FAILED
    assert report.outcome.error_message == "no charge: division by zero"


def test_a_timeout_ends_the_same_wherever_it_is_killed() -> None:
    assert crash_everywhere(trial, "user-1").outcome.output == "downgraded"


LIVES: list[int] = []


@workflow(name="impure", version="1.0.0")
async def impure(run: Run) -> int:
    """Depends on how often its code ran, which is what must not be."""
    LIVES.append(1)
    await charge(1)
    return len(LIVES)


def test_code_that_is_not_deterministic_is_found_and_the_write_is_named() -> None:
    def forget(_aiki: Aiki) -> None:
        LIVES.clear()

    with pytest.raises(OutcomeDiffers) as caught:
        crash_everywhere(impure, setup=forget)
    message = str(caught.value)
    assert "Without a crash the run ended as completed with 1." in message
    assert "task-succeeded (task:charge)" in message
    assert "it ended as completed with 2" in message


def test_an_event_that_is_none_is_refused() -> None:
    events: Any = [("paid", "txn")]
    with pytest.raises(InvalidRequest, match=r"pass \(event, data\)"):
        crash_everywhere(trial, "user-1", events=events)


async def test_it_works_inside_trio_too() -> None:
    assert crash_everywhere(trial, "user-1", events=[(paid, "txn")]).outcome.output == "paid"
