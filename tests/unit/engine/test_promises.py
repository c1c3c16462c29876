"""The lines of the list "what upstream gets wrong and we get right" that the engine alone can show.

One test or more for each, by its number in semantics.md 12, then one for each defect that was once
found in the engine itself and for each of its limits.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from aiki_actors import engine as en
from aiki_actors.engine import Call, ClaimRef, Micros, Phase
from aiki_sdk.protocol import OnParentEnd, RunStatus, Slept
from tests.unit.engine.strategies import (
    CURRENT,
    CURRENT_EPOCH,
    ERROR,
    EVENT_WAITS,
    EVENTS,
    PARENT_ID,
    RUN_ID,
    SLEEPS,
    TASKS,
    Play,
    retry_policy,
    spec,
    started,
)

SECOND = Micros(en.SECOND)
HOUR = Micros(3600 * en.SECOND)
CHILD = "run_a"
CHILD_WAIT = Call(f"wait-child:{CHILD}")
FIRST, SECOND_CALL = EVENT_WAITS[:2]


def start_child(
    play: Play, child_id: str = CHILD, policy: OnParentEnd = OnParentEnd.ABANDON
) -> None:
    child = spec(parent=en.ParentLink(RUN_ID, policy), depth=1)
    call = Call(f"child:{child_id}")
    play.expect(en.StartChild(call, child_id, child, policy, claim=CURRENT), en.ChildStarted)


def await_child(play: Play, timeout: Micros | None = None) -> None:
    play.expect(en.AwaitChild(CHILD_WAIT, CHILD, timeout, claim=CURRENT), en.ChildWaitStarted)


def await_event(play: Play, call: Call = FIRST, timeout: Micros | None = None) -> None:
    play.expect(en.AwaitEvent(call, "paid", timeout, claim=CURRENT), en.EventWaitStarted)


def sleep(play: Play, call: Call, span: Micros) -> None:
    play.expect(en.StartSleep(call, span, claim=CURRENT), en.SleepStarted)


def last(play: Play) -> en.Body:
    return play.journal[-1].body


# --- What upstream gets wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED])
def test_02_03_a_parent_wakes_however_its_child_ends(status: RunStatus) -> None:
    play = started()
    start_child(play)
    await_child(play)
    play.park()
    play.expect(en.EndChild(CHILD, status), en.ChildEnded, en.RunQueued)
    assert play.state.ready


def test_03_a_child_that_is_cancelled_without_any_worker_tells_its_parent() -> None:
    child = Play()
    created = spec(parent=en.ParentLink(PARENT_ID))
    child.expect(en.CreateRun(created), en.RunCreated, en.RunQueued)
    child.expect(en.CancelRun("bulk"), en.RunCancelled)
    (note,) = en.notices(child.state, child.steps[-1].entries)
    assert note.target_id == PARENT_ID
    assert note.command == en.EndChild(RUN_ID, RunStatus.CANCELLED)


def test_04_a_stale_timer_leaves_a_later_wait_alone() -> None:
    """The timer of an event wait comes after the event, while the next wait is open."""
    play = started()
    await_event(play, FIRST, SECOND)
    play.expect(en.AcceptEvent("paid", 1), en.EventAccepted, en.EventConsumed)
    await_event(play, SECOND_CALL, HOUR)
    play.pass_time(SECOND)
    play.expect(en.Elapse())
    assert list(play.state.waits) == [SECOND_CALL]


def test_05_an_event_that_arrives_while_the_run_parks_is_not_missed() -> None:
    play = started()
    await_event(play)
    parking = en.ParkRun((FIRST,), claim=play.state.claim.ref if play.state.claim else CURRENT)
    play.expect(en.AcceptEvent("paid", 1), en.EventAccepted, en.EventConsumed)
    play.expect(parking)
    assert play.state.phase is Phase.RUNNING, "the worker goes on with the event instead"


def test_05_an_event_just_after_parking_wakes_the_run() -> None:
    play = started()
    await_event(play)
    play.park()
    play.expect(en.AcceptEvent("paid", 1), en.EventAccepted, en.EventConsumed, en.RunQueued)


def test_05_an_event_that_is_sent_before_the_wait_is_kept_for_it() -> None:
    play = started()
    play.expect(en.AcceptEvent("paid", 1), en.EventAccepted)
    play.expect(en.AwaitEvent(FIRST, "paid", claim=CURRENT), en.EventConsumed)


def test_06_events_sent_at_once_are_all_kept_and_come_in_order() -> None:
    play = started()
    for number in range(3):
        play.expect(en.AcceptEvent("paid", number), en.EventAccepted)
    accepted = [entry.seq for entry in play.journal if isinstance(entry.body, en.EventAccepted)]
    for call in EVENT_WAITS[:3]:
        play.expect(en.AwaitEvent(call, "paid", claim=CURRENT), en.EventConsumed)
    assert [item for _name, item in play.state.consumed.values()] == accepted


def test_06_a_repeated_reference_id_is_acknowledged_and_dropped() -> None:
    play = started()
    play.expect(en.AcceptEvent("paid", 1, "ref-1"), en.EventAccepted)
    play.expect(en.AcceptEvent("paid", 2, "ref-1"))
    play.expect(en.AcceptEvent("shipped", 2, "ref-1"), en.EventAccepted)


def test_06_an_item_that_is_given_back_is_the_next_to_be_read() -> None:
    play = started()
    for number in range(2):
        play.expect(en.AcceptEvent("paid", number), en.EventAccepted)
    play.expect(en.AwaitEvent(FIRST, "paid", claim=CURRENT), en.EventConsumed)
    _name, item = play.state.consumed[FIRST]
    play.expect(en.AbandonWait(FIRST, claim=CURRENT), en.EventReturned)
    play.expect(en.AwaitEvent(SECOND_CALL, "paid", claim=CURRENT), en.EventConsumed)
    assert play.state.consumed == {SECOND_CALL: ("paid", item)}


def test_06_an_item_that_is_given_back_goes_to_a_wait_that_is_open() -> None:
    play = started()
    await_event(play, FIRST)
    await_event(play, SECOND_CALL)
    play.expect(en.AcceptEvent("paid", 1), en.EventAccepted, en.EventConsumed)
    play.expect(en.AbandonWait(FIRST, claim=CURRENT), en.EventReturned, en.EventConsumed)
    assert list(play.state.consumed) == [SECOND_CALL]
    assert not play.state.waits


@pytest.mark.parametrize("interruption", [en.PauseRun(), en.LoseClaim(CURRENT_EPOCH, "crash")])
def test_07_a_task_in_flight_costs_the_run_nothing_when_it_is_interrupted(
    interruption: en.Command,
) -> None:
    play = started()
    play.do(interruption)
    assert not play.state.phase.terminal
    assert play.state.tasks == {}, "no attempt was counted"
    play.do(en.ResumeRun())
    if play.state.ready:
        play.claim()
    play.expect(en.RecordSuccess(TASKS[0], 1, "ok", claim=CURRENT), en.TaskSucceeded)


def test_11_parallel_sleeps_and_timeouts_elapse_together() -> None:
    play = started()
    sleep(play, SLEEPS[0], SECOND)
    sleep(play, SLEEPS[1], SECOND)
    await_event(play, FIRST, SECOND)
    play.park()
    play.pass_time(SECOND)
    ends = (en.SleepEnded, en.SleepEnded, en.WaitTimedOut, en.RunQueued)
    play.expect(en.Elapse(), *ends)


def test_11_a_sleep_ends_by_its_own_time_not_by_that_of_the_first() -> None:
    play = started()
    sleep(play, SLEEPS[0], SECOND)
    sleep(play, SLEEPS[1], HOUR)
    play.pass_time(SECOND)
    play.expect(en.Elapse(), en.SleepEnded)
    assert en.next_due(play.state) == play.state.waits[SLEEPS[1]].due_at


def test_13_a_zombie_worker_never_becomes_valid_again() -> None:
    """Not even if the same epoch is given out again after a database lost its last commits."""
    play = started()
    assert play.state.claim is not None
    zombie = play.state.claim.ref
    play.expect(en.LoseClaim(zombie.epoch, "no heartbeat"), en.ClaimLost)
    play.refuse(en.CompleteRun("old", claim=zombie), "stale-claim")
    play.claim()
    play.refuse(en.CompleteRun("old", claim=zombie), "stale-claim")
    assert play.state.claim is not None
    same_epoch = ClaimRef(play.state.claim.ref.epoch, zombie.claim_id)
    play.refuse(en.CompleteRun("old", claim=same_epoch), "stale-claim")


def test_15_a_siblings_retry_is_not_pulled_forward() -> None:
    play = started()
    for call, delay in zip(TASKS, (SECOND, HOUR), strict=True):
        play.expect(en.RecordFailure(call, 1, ERROR, delay, claim=CURRENT), en.AttemptFailed)
    play.park()
    assert en.status_of(play.state) is RunStatus.AWAITING_RETRY
    play.pass_time(SECOND)
    play.expect(en.Elapse(), en.RetryDue, en.RunQueued)
    assert list(play.state.waits) == [TASKS[1]]


@pytest.mark.parametrize("span", [Micros(0), Micros(-5)])
def test_18_a_sleep_of_nothing_is_over_at_once_and_recorded(span: Micros) -> None:
    play = started()
    play.expect(en.StartSleep(SLEEPS[0], span, claim=CURRENT), en.SleepStarted, en.SleepEnded)
    assert last(play) == en.SleepEnded(SLEEPS[0], Slept.ELAPSED)
    assert not play.state.waits


@pytest.mark.parametrize(
    ("end", "phase"),
    [
        (en.CompleteRun(None, claim=CURRENT), Phase.COMPLETED),
        (en.FailRun(ERROR, retryable=False, claim=CURRENT), Phase.FAILED),
        (en.TerminateRun(), Phase.CANCELLED),
    ],
    ids=lambda value: str(value) if isinstance(value, Phase) else "",
)
def test_22_an_ended_run_takes_no_writes(end: en.Command, phase: Phase) -> None:
    play = started()
    start_child(play)
    play.do(end)
    assert play.state.phase is phase
    seq = play.state.seq
    play.refuse(en.RecordSuccess(TASKS[0], 1, None, claim=CURRENT), "stale-claim")
    play.refuse(en.AcceptEvent("paid", 1), "run-ended")
    for command in (
        en.PauseRun(),
        en.ResumeRun(),
        en.WakeRun(),
        en.RequeueRun(),
        *((en.CancelRun(), en.TerminateRun()) if phase is not Phase.CANCELLED else ()),
        *((en.RetryRun(),) if phase is not Phase.FAILED else ()),
    ):
        play.refuse(command, "run-ended")
        refusal = play.steps[-1].decision
        assert isinstance(refusal, en.Rejected)
        assert refusal.details["status"] == phase.value
    play.expect(en.Elapse())
    assert play.state.seq == seq
    # A failed run alone still learns how its children end: an operator may retry it.
    kinds = (en.ChildEnded,) if phase is Phase.FAILED else ()
    play.expect(en.EndChild(CHILD, RunStatus.COMPLETED), *kinds)
    assert play.state.phase is phase


def test_29_an_unknown_event_name_is_refused_and_the_declared_ones_are_named() -> None:
    play = started(events=EVENTS)
    for command in (
        en.AcceptEvent("payd", 1),
        en.AwaitEvent(FIRST, "payd", claim=CURRENT),
    ):
        play.refuse(command, "unknown-event")
        refusal = play.steps[-1].decision
        assert isinstance(refusal, en.Rejected)
        assert all(name in refusal.message for name in EVENTS)


def test_30_a_retried_workflow_starts_a_failed_child_afresh() -> None:
    """Its failed child stays ended; the new attempt starts and awaits another one."""
    play = started(retry=retry_policy(2, 0))
    start_child(play)
    play.expect(en.EndChild(CHILD, RunStatus.FAILED, error=ERROR), en.ChildEnded)
    failed = en.FailRun(ERROR, retryable=True, claim=CURRENT)
    play.expect(failed, en.RunAttemptFailed, en.RunQueued)
    play.claim()
    start_child(play, "run_b")
    await_other = en.AwaitChild(CHILD_WAIT, "run_b", claim=CURRENT)
    play.expect(await_other, en.ChildWaitStarted)


def test_30_a_retried_workflow_keeps_what_succeeded_and_discards_what_failed() -> None:
    play = started(retry=retry_policy(2, 1))
    play.expect(en.RecordSuccess(TASKS[0], 1, "ok", claim=CURRENT), en.TaskSucceeded)
    play.expect(en.RecordFailure(TASKS[1], 1, ERROR, claim=CURRENT), en.TaskFailed)
    await_event(play)
    play.expect(en.FailRun(ERROR, retryable=True, claim=CURRENT), en.RunAttemptFailed)
    assert en.status_of(play.state) is RunStatus.AWAITING_RETRY
    assert play.state.tasks == {TASKS[0]: en.SUCCEEDED}
    assert list(play.state.waits) == [en.RUN_RETRY_CALL]
    play.pass_time(SECOND)
    play.expect(en.Elapse(), en.RetryDue, en.RunQueued)
    assert play.state.attempt == 2


# --- Defects of the engine itself, found and mended -----------------------------------------------


def test_a_retry_that_is_claimed_at_once_leaves_no_wait_behind() -> None:
    play = started(retry=retry_policy(2, 0))
    failed = en.FailRun(ERROR, retryable=True, claim=CURRENT)
    play.expect(failed, en.RunAttemptFailed, en.RunClaimed, standby=True)
    assert not play.state.waits
    assert en.next_due(play.state) is None


def test_a_cancellation_of_a_run_between_attempts_leaves_no_wait_behind() -> None:
    play = started(retry=retry_policy(2, 60))
    play.expect(en.FailRun(ERROR, retryable=True, claim=CURRENT), en.RunAttemptFailed)
    play.expect(en.CancelRun(), en.CancelRequested, en.RunClaimed, standby=True)
    assert not play.state.waits


def test_a_late_word_of_code_that_is_gone_does_not_cut_the_delay_of_a_retry_short() -> None:
    play = started(retry=retry_policy(2, 60))
    play.expect(en.FailRun(ERROR, retryable=True, claim=CURRENT), en.RunAttemptFailed)
    play.expect(en.UnparkRun())


def test_code_that_goes_on_by_itself_makes_a_parked_run_ready() -> None:
    play = started()
    await_event(play)
    play.park()
    play.expect(en.UnparkRun(), en.RunQueued)
    play.claim()
    play.expect(en.UnparkRun())


def test_a_short_retry_ends_the_long_one_that_it_follows() -> None:
    play = started()
    play.expect(en.RecordFailure(TASKS[0], 1, ERROR, HOUR, claim=CURRENT), en.AttemptFailed)
    play.expect(en.RecordFailure(TASKS[0], 2, ERROR, Micros(0), claim=CURRENT), en.AttemptFailed)
    assert not play.state.waits


def test_a_wait_that_timed_out_is_not_opened_again_by_a_repetition() -> None:
    play = started()
    start_child(play)
    for command in (
        en.AwaitEvent(FIRST, "paid", Micros(0), claim=CURRENT),
        en.AwaitChild(CHILD_WAIT, CHILD, Micros(0), claim=CURRENT),
    ):
        play.expect(command, en.WaitTimedOut)
        play.expect(command)


def test_a_new_attempt_of_the_workflow_waits_anew_for_what_timed_out() -> None:
    play = started(retry=retry_policy(2, 0))
    play.expect(en.AwaitEvent(FIRST, "paid", Micros(0), claim=CURRENT), en.WaitTimedOut)
    failed = en.FailRun(ERROR, retryable=True, claim=CURRENT)
    play.expect(failed, en.RunAttemptFailed, en.RunClaimed, standby=True)
    await_event(play, FIRST, SECOND)


def test_a_value_is_recorded_once() -> None:
    play = started()
    recorded = en.RecordValue(Call("local:now"), 1, claim=CURRENT)
    play.expect(recorded, en.ValueRecorded)
    play.expect(recorded)


def test_a_run_that_timed_out_can_be_retried() -> None:
    """The timeout runs from the retry; else the retried run would fail again at once."""
    play = started(timeout=SECOND)
    play.pass_time(SECOND)
    play.expect(en.Elapse(), en.RunFailed)
    play.expect(en.RetryRun(), en.RunRetried)
    play.expect(en.Elapse())
    assert play.state.deadline == play.now + SECOND


def test_a_retry_forgets_the_cancellation_that_the_failed_run_was_in() -> None:
    play = started()
    play.expect(en.CancelRun(), en.CancelRequested)
    play.expect(en.Diverge(ERROR, claim=CURRENT), en.RunFailed)
    play.expect(en.RetryRun(), en.RunRetried)
    assert play.state.cancel is None
    play.pass_time(HOUR)
    play.expect(en.Elapse())


def test_a_late_timer_ends_a_run_by_what_was_due_first() -> None:
    ends: list[type[en.Body]] = []
    for grace in (SECOND, HOUR):
        play = started(timeout=Micros(60 * SECOND), cancel_grace=grace)
        play.expect(en.CancelRun(), en.CancelRequested)
        play.pass_time(2 * HOUR)
        play.do(en.Elapse())
        ends.append(type(last(play)))
    assert ends == [en.RunCancelled, en.RunFailed]


def test_a_notice_has_the_same_id_in_a_batch_and_alone() -> None:
    play = started(parent=en.ParentLink(PARENT_ID))
    start_child(play)
    start_child(play, "run_b")
    play.expect(en.CompleteRun(None, claim=CURRENT), en.RunCompleted)
    together = en.notices(play.state, play.journal)
    alone = [note for entry in play.journal for note in en.notices(play.state, [entry])]
    assert list(together) == alone
    assert len(together) == 3


# --- Limits ---------------------------------------------------------------------------------------


def limited(**limits: Any) -> Play:
    play = started()
    play.limits = attrs.evolve(en.DEFAULT_LIMITS, **limits)
    return play


@pytest.mark.parametrize(
    "command",
    [
        en.RecordSuccess(TASKS[0], 1, None, claim=CURRENT),
        en.RecordFailure(TASKS[0], 1, ERROR, claim=CURRENT),
        en.StartSleep(SLEEPS[0], SECOND, claim=CURRENT),
        en.StartSleep(SLEEPS[0], Micros(0), claim=CURRENT),
        en.AwaitEvent(FIRST, "paid", claim=CURRENT),
        en.AwaitEvent(FIRST, "paid", Micros(0), claim=CURRENT),
        en.AwaitChild(CHILD_WAIT, CHILD, Micros(0), claim=CURRENT),
        en.RecordValue(Call("local:now"), 1, claim=CURRENT),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_journal_that_reached_its_limit_fails_the_run(command: en.Command) -> None:
    """Also by what is over at once, or a loop of zero sleeps would grow it without end."""
    play = started()
    start_child(play)
    play.limits = attrs.evolve(en.DEFAULT_LIMITS, entries_max=play.state.seq)
    play.expect(command, en.RunFailed)
    error = play.state.outcome.error if play.state.outcome else None
    assert error is not None
    assert error.code == "limit-exceeded"
    assert "entries_max" in error.message


def test_a_run_whose_workers_are_lost_in_a_row_stalls_with_the_reason() -> None:
    play = limited(claims_lost_max=2)
    play.expect(en.LoseClaim(CURRENT_EPOCH, "no heartbeat"), en.ClaimLost)
    play.claim()
    play.expect(en.LoseClaim(CURRENT_EPOCH, "no heartbeat"), en.ClaimLost, en.RunStalled)
    assert play.state.stalled is not None
    assert "wrk_1" in play.state.stalled
    assert "no heartbeat" in play.state.stalled


def test_progress_between_two_losses_starts_the_count_again() -> None:
    play = limited(claims_lost_max=2)
    play.expect(en.LoseClaim(CURRENT_EPOCH, "no heartbeat"), en.ClaimLost)
    play.claim()
    play.expect(en.RecordSuccess(TASKS[0], 1, None, claim=CURRENT), en.TaskSucceeded)
    play.expect(en.LoseClaim(CURRENT_EPOCH, "no heartbeat"), en.ClaimLost)


@pytest.mark.parametrize("number", [0, 1])
def test_children_are_limited_in_number(number: int) -> None:
    play = limited(children_max=number)
    for taken in range(number):
        start_child(play, f"run_{taken}")
    child = spec(depth=1, parent=en.ParentLink(play.state.run_id))
    one_more = en.StartChild(Call("c"), "run_x", child, OnParentEnd.ABANDON, claim=CURRENT)
    play.refuse(one_more, "limit-exceeded")


def test_children_are_limited_in_depth() -> None:
    play = limited(depth_max=1)
    child = spec(depth=2, parent=en.ParentLink(play.state.run_id))
    deeper = en.StartChild(Call("c"), CHILD, child, OnParentEnd.ABANDON, claim=CURRENT)
    play.refuse(deeper, "limit-exceeded")
    created = Play(limits=play.limits)
    created.refuse(en.CreateRun(child), "limit-exceeded")


def test_a_mailbox_is_limited() -> None:
    play = limited(unread_max=1)
    play.expect(en.AcceptEvent("paid", 1), en.EventAccepted)
    play.refuse(en.AcceptEvent("paid", 2), "limit-exceeded")


@pytest.mark.parametrize(
    "command",
    [
        en.StartSleep(SLEEPS[0], HOUR, claim=CURRENT),
        en.AwaitEvent(FIRST, "paid", HOUR, claim=CURRENT),
        en.AwaitChild(CHILD_WAIT, CHILD, HOUR, claim=CURRENT),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_wait_is_limited_in_length(command: en.Command) -> None:
    play = limited(wait_max=HOUR - 1)
    start_child(play)
    play.refuse(command, "invalid-request")


def test_a_short_retry_delay_passes_in_the_worker_and_a_longer_one_is_a_wait() -> None:
    play = started()
    limit = en.DEFAULT_LIMITS.local_retry_max
    short = en.RecordFailure(TASKS[0], 1, ERROR, limit, claim=CURRENT)
    play.expect(short, en.AttemptFailed)
    assert not play.state.waits
    longer = en.RecordFailure(TASKS[0], 2, ERROR, Micros(limit + 1), claim=CURRENT)
    play.expect(longer, en.AttemptFailed)
    assert list(play.state.waits) == [TASKS[0]]


def test_a_retried_run_knows_the_child_that_ended_while_it_was_failed() -> None:
    """Else its code would wait for that child for ever."""
    play = started()
    start_child(play)
    play.do(en.FailRun(ERROR, retryable=False, claim=CURRENT))
    play.expect(en.EndChild(CHILD, RunStatus.COMPLETED), en.ChildEnded)
    play.do(en.RetryRun())
    assert play.state.children[CHILD].status is RunStatus.COMPLETED


def test_12_1_a_lengthened_sleep_is_slept_on_once() -> None:
    """Said again, a sleep adds nothing; asked for more than was slept, it sleeps the rest."""
    play = started()
    call = Call("sleep:nap")
    play.expect(en.StartSleep(call, Micros(10), claim=CURRENT), en.SleepStarted)
    play.expect(en.StartSleep(call, Micros(10), claim=CURRENT))
    play.pass_time(Micros(10))
    play.expect(en.Elapse(), en.SleepEnded)
    play.expect(en.StartSleep(call, Micros(10), claim=CURRENT))
    play.expect(en.StartSleep(call, Micros(4), claim=CURRENT))
    play.expect(en.StartSleep(call, Micros(25), claim=CURRENT), en.SleepStarted)
    assert play.state.waits[call].due_at == play.now + 15
    play.pass_time(Micros(15))
    play.expect(en.Elapse(), en.SleepEnded)
    play.expect(en.StartSleep(call, Micros(25), claim=CURRENT))


def test_12_1_what_was_slept_does_not_depend_on_when_the_journal_was_copied() -> None:
    """A fork's entries are of the time of the fork, its deadlines of the time of its origin."""
    play = started()
    call = Call("sleep:nap")
    for body in (
        en.SleepStarted(call, Micros(10), Micros(play.now + 1_000_000)),
        en.SleepEnded(call, Slept.ELAPSED),
    ):
        play.state = en.evolve(play.state, en.Entry(play.state.seq + 1, play.now, body))
    play.expect(en.StartSleep(call, Micros(10), claim=CURRENT))
    play.expect(en.StartSleep(call, Micros(25), claim=CURRENT), en.SleepStarted)
    assert play.state.waits[call].due_at == play.now + 15


def test_an_event_that_comes_after_a_wait_was_due_stays_unread() -> None:
    """The timer may be late, the timeout is not: the wait has timed out."""
    play = started(events=EVENTS)
    name = EVENTS[0]
    call = Call(f"event:{name}")
    play.expect(en.AwaitEvent(call, name, Micros(10), claim=CURRENT), en.EventWaitStarted)
    play.pass_time(Micros(10))
    play.expect(en.AcceptEvent(name, 1), en.EventAccepted)
    play.expect(en.Elapse(), en.WaitTimedOut)
    assert len(play.state.unread[name]) == 1


def test_a_run_whose_last_wait_is_over_never_seems_to_wait_for_an_event() -> None:
    """Who watches for `awaiting_event` must not be told of it by the entry before a claim."""
    play = started()
    call = Call("sleep:nap")
    play.do(en.StartSleep(call, Micros(10), claim=CURRENT))
    play.do(en.ParkRun((call,), claim=CURRENT))
    ended = en.evolve(
        play.state, en.Entry(play.state.seq + 1, play.now, en.SleepEnded(call, Slept.ELAPSED))
    )
    assert en.status_of(ended) is RunStatus.QUEUED
