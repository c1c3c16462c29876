"""Durable timeouts on the server's side: recorded once, due by themselves, given up, or reached."""

from __future__ import annotations

import pytest

from aiki_actors import engine as en
from aiki_actors.engine import Micros, Phase
from aiki_sdk.protocol import RunStatus
from tests.unit.engine.strategies import (
    CURRENT,
    ERROR,
    EVENT_WAITS,
    SLEEPS,
    TASKS,
    TIMEOUTS,
    Play,
    retry_policy,
    started,
)

SECOND = Micros(en.SECOND)
HOUR = Micros(3600 * en.SECOND)
OUTER, INNER = TIMEOUTS
START = en.StartTimeout(OUTER, SECOND, claim=CURRENT)


def begin(play: Play, span: Micros = SECOND) -> None:
    play.expect(en.StartTimeout(OUTER, span, claim=CURRENT), en.TimeoutStarted)


def test_the_due_time_is_fixed_when_it_is_first_met() -> None:
    play = started()
    begin(play)
    due = play.now + SECOND
    play.pass_time(SECOND // 2)
    play.expect(START)
    play.expect(en.StartTimeout(OUTER, HOUR, claim=CURRENT))
    assert en.next_due(play.state) == due


def test_a_parked_run_is_woken_by_it_and_it_fires_once() -> None:
    play = started()
    begin(play)
    wait = en.AwaitEvent(EVENT_WAITS[0], "paid", None, claim=CURRENT)
    play.expect(wait, en.EventWaitStarted)
    play.park()
    assert en.status_of(play.state) is RunStatus.AWAITING_EVENT
    play.pass_time(SECOND - 1)
    play.expect(en.Elapse())
    play.pass_time(1)
    play.expect(en.Elapse(), en.TimeoutReached, en.RunQueued)
    play.claim()
    play.expect(START)
    assert list(play.state.waits) == [EVENT_WAITS[0]], "the code gives up what it waited for"


@pytest.mark.parametrize("span", [Micros(0), Micros(-1)])
def test_no_time_at_all_is_over_at_once(span: Micros) -> None:
    play = started()
    play.expect(en.StartTimeout(OUTER, span, claim=CURRENT), en.TimeoutReached)
    assert not play.state.waits


def test_one_that_is_given_up_never_fires() -> None:
    play = started()
    begin(play)
    play.expect(en.AbandonWait(OUTER, claim=CURRENT), en.WaitAbandoned)
    play.pass_time(HOUR)
    play.expect(en.Elapse())


def test_the_run_does_not_park_over_a_timeout_that_was_reached_meanwhile() -> None:
    play = started()
    begin(play)
    play.expect(en.StartSleep(SLEEPS[0], HOUR, claim=CURRENT), en.SleepStarted)
    play.pass_time(SECOND)
    play.expect(en.Elapse(), en.TimeoutReached)
    play.expect(en.ParkRun((SLEEPS[0], OUTER), claim=CURRENT))
    assert play.state.phase is Phase.RUNNING


def test_the_earliest_is_reached_first_among_all_waits() -> None:
    play = started()
    begin(play)
    play.expect(en.StartTimeout(INNER, Micros(5), claim=CURRENT), en.TimeoutStarted)
    play.expect(en.StartSleep(SLEEPS[0], Micros(7), claim=CURRENT), en.SleepStarted)
    play.pass_time(SECOND)
    play.expect(en.Elapse(), en.TimeoutReached, en.SleepEnded, en.TimeoutReached)
    ends = [
        entry.body.call
        for entry in play.journal[-3:]
        if isinstance(entry.body, en.TimeoutReached | en.SleepEnded)
    ]
    assert ends == [INNER, SLEEPS[0], OUTER]


def test_the_next_attempt_of_the_workflow_begins_it_afresh() -> None:
    play = started(retry=retry_policy(3, 0))
    begin(play)
    play.pass_time(SECOND)
    play.expect(en.Elapse(), en.TimeoutReached)
    fail = en.FailRun(ERROR, retryable=True, claim=CURRENT)
    play.expect(fail, en.RunAttemptFailed, en.RunQueued)
    play.claim()
    begin(play)


def test_a_wake_by_an_operator_does_not_touch_it() -> None:
    play = started()
    begin(play)
    play.refuse(en.WakeRun(), "illegal-transition")


def test_one_longer_than_the_limit_is_refused() -> None:
    play = started()
    longest = Micros(en.DEFAULT_LIMITS.wait_max + 1)
    play.refuse(en.StartTimeout(OUTER, longest, claim=CURRENT), "invalid-request")
    assert TASKS[0] not in play.state.tasks
