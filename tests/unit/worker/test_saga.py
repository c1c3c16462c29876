"""Compensations: what undoes the steps of a run, when, in which order, and across crashes."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio

from aiki_actors import engine as e
from aiki_sdk import (
    NonRetryable,
    Retry,
    Run,
    current_task,
    task,
    workflow,
)
from tests.unit.worker.fake_server import Life, Plan, live

undone: list[int] = []
failures: list[int] = []


@task
async def step(n: int) -> int:
    """Do something that takes a while."""
    await trio.sleep(n * 0.1)
    return n


@task(retry=Retry.fixed(2, 0.4))
async def undo(n: int) -> int:
    """Undo it; 7 succeeds with the second attempt, 9 never does."""
    undone.append(n)
    await trio.sleep(0.1)
    if n == 9 or (n == 7 and current_task().attempt == 1):
        message = f"cannot undo {n}"
        raise ValueError(message)
    return n


@workflow(name="saga", version="1.0.0")
async def saga(run: Run, how: str) -> list[int]:
    """Register compensations in branches and between them, and end as `how` says."""
    run.compensate(undo, 1)
    await step(1)

    async def branch(n: int) -> None:
        run.compensate(undo, n)
        await step(n)
        run.compensate(undo, n * 100)

    await run.gather(branch(2), branch(3), branch(4))
    run.on_cancel(undo, 50)
    if how == "group":
        run.compensate(undo, 9)
    run.compensate(undo, 7)
    if how in ("fail", "group"):
        message = "no way"
        raise NonRetryable(message)
    if how == "cancel":
        await run.sleep("long", hours=1)
    return []


@workflow(name="again", version="1.0.0", retry=Retry.fixed(3, 1))
async def again(run: Run, fails: int) -> int:
    """Fail so many times."""
    run.compensate(undo, 1)
    await step(1)
    if run.attempt <= fails:
        message = f"attempt {run.attempt}"
        raise ValueError(message)
    return run.attempt


@workflow(name="wrong", version="1.0.0")
async def wrong(run: Run, how: str) -> str:
    """Register what cannot be."""
    if how == "no task":
        run.compensate(cast("Any", len), "x")
    elif how == "not callable":
        run.on_cancel(cast("Any", 5))
    else:
        run.compensate(undo, cast("Any", object()))
    return "done"


@workflow(name="stubborn", version="1.0.0", cancel_grace=2)
async def stubborn(run: Run) -> None:
    """Have a compensation that takes longer than the grace."""
    run.compensate(step, 100)
    await run.sleep("long", hours=1)


def plan_of(how: str, seed: int = 0) -> Plan:
    commands = [(3.0, e.CancelRun("enough"))] if how == "cancel" else []
    return Plan(commands=commands, seed=seed)


ORDERS = {
    "fail": [7, 7, 400, 300, 200, 4, 3, 2, 1],
    "group": [7, 7, 9, 9, 400, 300, 200, 4, 3, 2, 1],
    "cancel": [7, 7, 50, 400, 300, 200, 4, 3, 2, 1],
    "return": [],
}


def execute(how: str, life: Life | None = None, cut: int | None = None) -> Life:
    undone.clear()
    if life is None:
        return live(saga, (how,), plan_of(how))
    return live(saga, (how,), plan_of(how), journal=life.journal[:cut], cuts=life.cuts, life=1)


@pytest.mark.parametrize("how", ORDERS)
def test_compensations_run_last_first_when_a_run_does_not_come_to_its_end(how: str) -> None:
    life = execute(how)
    assert undone == ORDERS[how]
    phases = {"return": e.Phase.COMPLETED, "cancel": e.Phase.CANCELLED}
    assert life.state.phase is phases.get(how, e.Phase.FAILED)


@pytest.mark.parametrize("how", ORDERS)
def test_a_run_that_is_interrupted_while_it_compensates_goes_on_from_any_point(how: str) -> None:
    """Which have run follows from the journal: no recorded one runs again, none is left out."""
    life = execute(how)
    for cut in life.cuts[:-1]:
        recorded = [
            entry.body.call.address
            for entry in life.journal[:cut]
            if isinstance(entry.body, e.TaskSucceeded | e.TaskFailed | e.AttemptFailed)
            and entry.body.call.address.startswith("task:undo")
        ]
        resumed = execute(how, life, cut)
        assert undone == ORDERS[how][len(recorded) :], cut
        assert resumed.state.phase is life.state.phase
        outcome, before = resumed.state.outcome, life.state.outcome
        assert outcome is not None
        assert before is not None
        assert (outcome.error and outcome.error.message) == (before.error and before.error.message)


def test_a_compensation_that_fails_is_named_beside_the_run_s_own_error() -> None:
    outcome = execute("group").state.outcome
    assert outcome is not None
    assert outcome.error is not None
    shown = str(outcome.error.to_json())
    assert "no way" in shown
    assert "cannot undo 9" in shown
    assert outcome.error.type == "ExceptionGroup"


@pytest.mark.parametrize(("fails", "expected"), [(2, []), (3, [1])])
def test_nothing_is_undone_while_another_attempt_of_the_workflow_follows(
    fails: int, expected: list[int]
) -> None:
    undone.clear()
    life = live(again, (fails,), Plan())
    assert undone == expected
    assert life.state.attempt == 3


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("no task", "invalid-request"),
        ("not callable", "invalid-request"),
        ("payload", "payload"),
    ],
)
def test_what_cannot_be_registered_is_refused_at_the_call(how: str, code: str) -> None:
    outcome = live(wrong, (how,), Plan()).state.outcome
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.code == code


def test_compensations_of_a_cancelled_run_have_the_cancel_grace_and_no_more() -> None:
    life = live(stubborn, (), Plan(commands=[(1.0, e.CancelRun("enough"))]))
    assert life.state.phase is e.Phase.CANCELLED
    requested = next(en for en in life.journal if isinstance(en.body, e.CancelRequested))
    assert life.journal[-1].at - requested.at == 2 * e.SECOND
