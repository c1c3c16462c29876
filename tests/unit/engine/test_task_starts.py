"""Beginnings and heartbeats of tasks: said twice, said late, and what a run's retry forgets."""

from __future__ import annotations

from hypothesis import given

from aiki_actors import engine as en
from aiki_actors.engine import Call
from aiki_sdk import ErrorInfo, OutcomeUnknown
from tests.unit.engine.strategies import (
    CURRENT,
    CURRENT_EPOCH,
    ERROR,
    LIMITS,
    TASKS,
    Play,
    plays,
    retry_policy,
    started,
)

CALL = TASKS[0]
UNKNOWN = ErrorInfo(type="OutcomeUnknown", message="?", code=OutcomeUnknown.code, retryable=False)


def begin(attempt: int = 1) -> en.RecordStart:
    return en.RecordStart(CALL, attempt, claim=CURRENT)


def beat(attempt: int = 1, row: int = 5) -> en.RecordHeartbeat:
    return en.RecordHeartbeat(CALL, attempt, {"row": row}, claim=CURRENT)


def fail(error: ErrorInfo = ERROR, attempt: int = 1, *, again: bool = False) -> en.RecordFailure:
    delay = en.Micros(0) if again else None
    return en.RecordFailure(CALL, attempt, error, delay, claim=CURRENT)


def test_a_beginning_said_twice_is_one_entry() -> None:
    play = started()
    play.expect(begin(), en.TaskStarted)
    play.expect(begin())
    play.expect(en.LoseClaim(CURRENT_EPOCH, "gone"), en.ClaimLost)
    play.claim()
    play.expect(begin())


def test_after_a_known_failure_the_next_attempt_may_begin() -> None:
    play = started()
    play.expect(begin(), en.TaskStarted)
    play.expect(fail(again=True), en.AttemptFailed)
    play.expect(begin(1))
    play.expect(begin(2), en.TaskStarted)
    play.expect(en.RecordSuccess(CALL, 2, None, claim=CURRENT), en.TaskSucceeded)
    play.expect(begin(3))
    assert not play.state.begun


def test_only_a_person_lets_a_call_begin_again_whose_outcome_is_unknown() -> None:
    play = started(retry=retry_policy(2, 0))
    play.expect(begin(), en.TaskStarted)
    play.expect(fail(UNKNOWN), en.TaskFailed)
    again = en.FailRun(ERROR, retryable=True, claim=CURRENT)
    play.expect(again, en.RunAttemptFailed, en.RunQueued)
    play.claim()
    play.expect(begin())
    play.expect(en.FailRun(ERROR, retryable=False, claim=CURRENT), en.RunFailed)
    play.expect(en.RetryRun(), en.RunRetried)
    play.claim()
    play.expect(begin(), en.TaskStarted)


def test_a_known_failure_begins_afresh_in_the_next_attempt_of_the_run() -> None:
    play = started(retry=retry_policy(2, 0))
    play.expect(begin(), en.TaskStarted)
    play.expect(fail(), en.TaskFailed)
    play.expect(en.FailRun(ERROR, retryable=True, claim=CURRENT), en.RunAttemptFailed, en.RunQueued)
    play.claim()
    play.expect(begin(), en.TaskStarted)


def test_a_heartbeat_said_after_the_outcome_means_nothing() -> None:
    play = started()
    play.expect(beat(), en.HeartbeatRecorded)
    play.expect(beat(), en.HeartbeatRecorded)
    play.expect(fail(again=True), en.AttemptFailed)
    play.expect(beat(1))
    play.expect(beat(2), en.HeartbeatRecorded)
    play.expect(en.RecordSuccess(CALL, 2, None, claim=CURRENT), en.TaskSucceeded)
    play.expect(beat(2))


def test_heartbeats_never_end_a_run_by_filling_its_journal() -> None:
    play = started()
    play.limits = LIMITS
    for _ in range(LIMITS.entries_max + 10):
        play.do(beat())
    assert play.state.seq == LIMITS.entries_max
    assert play.state.phase is en.Phase.RUNNING


def test_heartbeats_are_no_progress_that_would_keep_a_poisonous_run_alive() -> None:
    play = started()
    play.limits = LIMITS
    for _ in range(LIMITS.claims_lost_max - 1):
        play.expect(beat(), en.HeartbeatRecorded)
        play.expect(en.LoseClaim(CURRENT_EPOCH, "killed"), en.ClaimLost)
        play.claim()
    play.do(en.LoseClaim(CURRENT_EPOCH, "killed"))
    assert play.state.phase is en.Phase.STALLED


def test_details_stand_with_the_failure_of_their_attempt() -> None:
    play = started()
    failure = en.RecordFailure(CALL, 1, ERROR, en.Micros(0), {"row": 7}, claim=CURRENT)
    play.expect(failure, en.AttemptFailed)
    body = play.journal[-1].body
    assert isinstance(body, en.AttemptFailed)
    assert body.details == {"row": 7}


@given(play=plays())
def test_no_attempt_begins_twice_and_none_speaks_after_its_end(play: Play) -> None:
    """In whatever order workers, operators and crashes come."""
    begun: dict[Call, int] = {}
    over: dict[Call, int] = {}
    for entry in play.journal:
        match entry.body:
            case en.TaskStarted(call, attempt):
                assert attempt > begun.get(call, 0), f"{call} attempt {attempt} begins again"
                assert attempt > over.get(call, 0), f"{call} begins after its end"
                begun[call] = attempt
            case en.HeartbeatRecorded(call, attempt):
                assert attempt > over.get(call, 0), f"{call} says something after its end"
            case en.AttemptFailed(call, attempt):
                begun.pop(call, None)
                over[call] = attempt
            case en.TaskSucceeded(call) | en.TaskFailed(call):
                if not isinstance(entry.body, en.TaskFailed) or entry.body.error.code is None:
                    begun.pop(call, None)
                over[call] = 1 << 30
            case en.RunAttemptFailed() | en.RunRetried():
                over = {call: n for call, n in over.items() if play.state.tasks.get(call) == 0}
                if isinstance(entry.body, en.RunRetried):
                    begun.clear()
            case _:
                pass
