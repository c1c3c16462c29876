"""Durable timeouts, rule by rule; see `test_timeout_properties.py` for all of them at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import trio
from attrs import evolve

from aiki_actors import engine as e
from aiki_sdk import Event, Run, WaitTimeout, task, workflow
from aiki_sdk.protocol import RunStatus
from aiki_trio.testing._journal import Journal
from aiki_trio.testing._replay import replay
from tests.unit.worker.fake_server import Life, Plan, live

go = Event("go", int)


@task
async def work(seconds: float) -> float:
    """Take so long."""
    await trio.sleep(seconds)
    return seconds


@workflow(name="patience", version="1.0.0", events=[go])
async def patience(run: Run, seconds: float, what: str) -> list[Any]:
    """Wait for one thing, for so long."""
    with run.move_on_after("patience", timedelta(seconds=seconds)) as scope:
        if what == "task":
            await work(10)
        elif what == "sleep":
            await run.sleep("long", seconds=10)
        elif what == "event":
            await run.wait(go)
        elif what == "branches":
            await run.gather(work(10), run.sleep("long", seconds=10))
        elif what == "tasks":
            for n in (3, 4, 5):
                await work(n)
        elif what == "local":
            await run.local("local", trio.sleep, 10)
    return [scope.cancel_called, scope.cancelled_caught, await work(1)]


@workflow(name="must", version="1.0.0")
async def must(run: Run) -> list[Any]:
    """Time out inside and outside; clean up with a task."""
    caught = ""
    with run.move_on_after("outer", 5) as outer:
        try:
            with run.fail_after("inner", 2):
                try:
                    await work(3)
                finally:
                    with trio.CancelScope(shield=True):
                        await work(1)
        except WaitTimeout as error:
            caught = str(error)
        await work(8)
    return [caught, outer.cancelled_caught]


@workflow(name="manual", version="1.0.0")
async def manual(run: Run) -> list[Any]:
    """End a block by hand; enter a scope in which nothing durable is done; use names again."""
    with run.move_on_after("t", 100) as first:
        first.cancel()
        await work(3)
    with run.move_on_after("t", 0) as second:
        pass
    seen = [first.cancelled_caught, second.cancelled_caught]
    for _ in range(3):
        with run.move_on_after("t", 1) as again:
            await work(2)
        seen.append(again.cancelled_caught)
    return seen


@workflow(name="anew", version="1.0.0")
async def anew(run: Run) -> int:
    """Time out in the first attempt only."""
    with run.fail_after("t", 1):
        await work(1.5 if run.attempt == 1 else 0.5)
    return run.attempt


def output(life: Life) -> Any:
    assert life.state.outcome is not None
    assert life.state.outcome.error is None, life.state.outcome.error
    return life.state.outcome.output


def kinds(life: Life) -> list[str]:
    return [entry.body.kind for entry in life.journal]


PROGRAMS = ["task", "sleep", "event", "branches", "tasks", "local"]


@pytest.mark.parametrize("what", PROGRAMS)
def test_what_is_inside_ends_when_the_time_is_over(what: str) -> None:
    """By the server's time, and to the microsecond: whatever happens, the timeout is a wait."""
    life = live(patience, (2.5, what), Plan(jitter=False))
    assert output(life) == [True, True, 1]
    started = next(en for en in life.journal if isinstance(en.body, e.TimeoutStarted))
    reached = next(en for en in life.journal if isinstance(en.body, e.TimeoutReached))
    assert reached.at - started.at == 2.5 * e.SECOND


@pytest.mark.parametrize("what", [*PROGRAMS, "nothing"])
def test_a_timeout_that_does_not_fire_leaves_no_trace_but_its_end(what: str) -> None:
    life = live(patience, (50, what), Plan([(3.0, "go", 1)], jitter=False))
    assert output(life) == [False, False, 1]
    assert not life.state.waits
    assert "timeout-reached" not in kinds(life)
    assert kinds(life).count("timeout-started") == (0 if what == "nothing" else 1)


@pytest.mark.parametrize("what", PROGRAMS)
@pytest.mark.parametrize("seconds", [2.5, 50, 0])
def test_a_run_resumed_from_any_point_goes_the_same_way(what: str, seconds: float) -> None:
    """The deadline is recorded with the first operation inside: a crash does not prolong it."""
    plan = Plan([(3.0, "go", 1)], jitter=False)
    life = live(patience, (seconds, what), plan)
    for cut in life.cuts[:-1]:
        before = life.journal[:cut]
        resumed = live(patience, (seconds, what), plan, journal=before, cuts=life.cuts, life=1)
        assert output(resumed) == output(life), cut
        assert not resumed.state.waits


def test_no_time_at_all_is_over_with_the_first_operation() -> None:
    life = live(patience, (0, "task"), Plan())
    assert output(life) == [True, True, 1]
    assert "timeout-started" not in kinds(life)


def test_timeouts_nest_and_clean_up_may_run_tasks() -> None:
    life = live(must, (), Plan(jitter=False))
    assert output(life) == ["timeout 'inner': what was inside did not end within 2 s", True]
    assert life.journal[-1].at - life.journal[0].at == 5 * e.SECOND


def test_a_block_may_be_ended_by_hand_and_a_name_used_again() -> None:
    life = live(manual, (), Plan(jitter=False))
    assert output(life) == [True, False, True, True, True]
    calls = [str(en.body.call) for en in life.journal if isinstance(en.body, e.TimeoutReached)]
    assert calls == ["timeout:t@#2", "timeout:t@#3", "timeout:t@#4"]


def test_a_new_attempt_of_the_workflow_has_its_time_afresh() -> None:
    from aiki_sdk import Retry

    again = workflow(name="anew", version="1.0.0", retry=Retry.fixed(2, 1))(anew.function)
    assert output(live(again, (), Plan(jitter=False))) == 2


def test_a_run_that_waits_inside_is_parked_and_shows_what_it_waits_for() -> None:
    life = live(patience, (2.5, "event"), Plan(jitter=False))
    parked = next(n for n, en in enumerate(life.journal) if isinstance(en.body, e.RunParked))
    state = e.fold("run_1", life.journal[: parked + 1])
    assert e.status_of(state) is RunStatus.AWAITING_EVENT
    assert e.next_due(state) == life.journal[0].at + 2.5 * e.SECOND
    assert [wait.kind for wait in state.waits.values()] == ["timeout", "event"]


def test_an_event_that_comes_after_the_time_is_kept_for_the_next_wait() -> None:
    """What the cut-off wait may have taken meanwhile goes back."""

    @workflow(name="late", version="1.0.0", events=[go])
    async def late(run: Run) -> list[Any]:
        with run.move_on_after("t", 1):
            try:
                await run.wait(go)
            finally:
                with trio.CancelScope(shield=True):
                    await work(2)
        return [await run.wait(go, timeout=1)]

    plan = Plan([(1.5, "go", 7)], jitter=False)
    life = live(late, (), plan)
    assert output(life) == [7]
    for cut in life.cuts[:-1]:
        resumed = live(late, (), plan, journal=life.journal[:cut], cuts=life.cuts, life=1)
        assert output(resumed) == [7]


def test_of_two_things_that_come_at_once_the_one_journaled_first_counts() -> None:
    """While it is paused the run times out, then its wait takes an event; it hears both at once."""
    commands: list[tuple[float, e.Command]] = [(1.0, e.PauseRun()), (4.0, e.ResumeRun())]
    plan = Plan([(3.0, "go", 7)], commands, jitter=False)
    life = live(patience, (2.5, "event"), plan)
    assert output(life) == [True, True, 1]
    assert kinds(life).index("timeout-reached") < kinds(life).index("event-consumed")
    assert len(life.state.unread["go"]) == 1, "what the wait had taken went back"


@workflow(name="nested", version="1.0.0", events=[go])
async def nested(run: Run, tasks: int) -> list[Any]:
    """Time out inside, go on with so many tasks, and leave the outside in time or not."""
    done: list[Any] = []
    with run.move_on_after("outer", 3):
        with run.move_on_after("inner", 2):
            await run.wait(go)
        done.append("left the inner one")
        done += [await work(0.4) for _ in range(tasks)]
    return done


def replayed(life: Life, run_id: str = "run_1") -> Any:
    report = replay(nested, Journal(run_id, "nested", "1.0.0", life.journal))
    assert report.outcome is not None
    assert report.outcome == report.recorded
    return report.outcome.output


@pytest.mark.parametrize("tasks", [0, 1, 2, 3])
def test_two_timeouts_are_told_one_by_one_however_they_come(tasks: int) -> None:
    """Paused, the run hears of both at once; what it does upon the first comes before the second.

    The code that has left the outer block by then is not cut off by it, live or in a replay.
    """
    pause: list[tuple[float, e.Command]] = [(1.0, e.PauseRun()), (4.0, e.ResumeRun())]
    for plan in (Plan(jitter=False), Plan(commands=pause, jitter=False)):
        life = live(nested, (tasks,), plan)
        expected = output(life)
        assert expected[0] == "left the inner one"
        assert replayed(life) == expected
        for cut in life.cuts[:-1]:
            before = life.journal[:cut]
            resumed = live(nested, (tasks,), plan, journal=before, cuts=life.cuts, life=1)
            assert output(resumed) == expected, cut


def test_a_timeout_that_was_journaled_after_its_block_was_left_changes_no_replay() -> None:
    """The timer and the code's last word crossed: the timeout is recorded, and met nobody."""
    life = live(nested, (0,), Plan(jitter=False))
    (outer,) = {
        en.body.call
        for en in life.journal
        if isinstance(en.body, e.TimeoutStarted) and "outer" in en.body.call.address
    }
    given_up = e.WaitAbandoned(outer)
    *before, end = [en.body for en in life.journal if en.body != given_up]
    bodies = [*before, e.TimeoutReached(outer), end]
    crossed = tuple(
        e.Entry(number + 1, life.journal[min(number, len(life.journal) - 1)].at, body)
        for number, body in enumerate(bodies)
    )
    assert replayed(evolve(life, journal=crossed)) == ["left the inner one"]
