"""What a worker's replica makes of task entries, and the parts of an attempt on their own."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio

from aiki_actors import engine as e
from aiki_actors.worker import Replica
from aiki_actors.worker._sealed import Seal, _parts
from aiki_actors.worker._threads import Threads
from aiki_sdk import ErrorInfo, OutcomeUnknown
from aiki_sdk.protocol import OnParentEnd

CALL = e.Call("task:charge:9f")
OTHER = e.Call("task:render:9f")
ERROR = ErrorInfo("ValueError", "boom")
UNKNOWN = ErrorInfo("OutcomeUnknown", "?", code=OutcomeUnknown.code)


def replica(*bodies: e.Body) -> Replica:
    made = Replica()
    made.apply(e.Entry(seq, e.Micros(seq), body) for seq, body in enumerate(bodies, 1))
    return made


def failed(attempt: int = 1, details: Any = None) -> e.AttemptFailed:
    return e.AttemptFailed(CALL, attempt, ERROR, e.Micros(0), waits=False, details=details)


# --- The divergence rule --------------------------------------------------------------------------


def test_a_heartbeat_alone_forbids_no_new_call() -> None:
    made = replica(e.HeartbeatRecorded(CALL, 1, 5))
    assert made.unconsumed == 0
    assert made.left_over() == []


@pytest.mark.parametrize("end", [failed(), e.TaskSucceeded(CALL, 1, 1), e.TaskStarted(CALL, 1)])
def test_what_follows_a_heartbeat_counts_as_ever(end: e.Body) -> None:
    made = replica(e.HeartbeatRecorded(CALL, 1, 5), end)
    assert made.unconsumed == 1
    assert [record.call for record in made.left_over()] == [CALL]
    assert made.take(CALL) is not None
    assert made.unconsumed == 0


def test_a_beginning_left_over_counts() -> None:
    assert replica(e.TaskStarted(CALL, 1)).unconsumed == 1


def test_a_call_that_was_made_here_is_not_counted_for_its_heartbeats() -> None:
    made = Replica()
    made.open(CALL)
    made.apply([e.Entry(1, e.Micros(1), e.HeartbeatRecorded(CALL, 1, 5))])
    made.apply([e.Entry(2, e.Micros(2), failed())])
    assert made.unconsumed == 0
    assert made.left_over() == []


# --- What the next attempt is told ----------------------------------------------------------------


def test_details_come_from_whatever_was_recorded_last() -> None:
    made = replica(e.HeartbeatRecorded(CALL, 1, 5), failed(1, 7), e.HeartbeatRecorded(CALL, 2, 9))
    record = made.take(CALL)
    assert record is not None
    assert (record.attempts, record.details) == (1, 9)
    record = replica(e.HeartbeatRecorded(CALL, 1, 5), failed(1)).take(CALL)
    assert record is not None
    assert record.details == 5


@pytest.mark.parametrize(
    ("bodies", "attempt"),
    [
        ((e.TaskStarted(CALL, 1),), 1),
        ((e.TaskStarted(CALL, 1), e.TaskFailed(CALL, 1, UNKNOWN)), 1),
        ((e.TaskStarted(CALL, 1), failed()), None),
        ((e.TaskStarted(CALL, 1), e.TaskFailed(CALL, 1, ERROR)), None),
        ((e.TaskStarted(CALL, 1), failed(), e.TaskStarted(CALL, 2)), 2),
    ],
)
def test_a_beginning_without_a_known_end_outlives_an_attempt_of_the_run(
    bodies: tuple[e.Body, ...], attempt: int | None
) -> None:
    automatic = replica(*bodies, e.RunAttemptFailed(1, ERROR, e.Micros(0)))
    record = automatic.take(CALL)
    assert (None if record is None else record.started) == attempt
    assert record is None or (record.attempts, record.resolution) == (0, None)
    assert automatic.unconsumed == 0
    assert replica(*bodies, e.RunRetried()).take(CALL) is None


# --- Threads --------------------------------------------------------------------------------------


async def test_an_abandoned_thread_keeps_its_place_until_it_ends() -> None:
    threads = Threads(trio.CapacityLimiter(1))
    go_on = threading.Event()
    with trio.fail_after(10):
        with trio.move_on_after(0.05):
            async with threads.call("a stuck one") as place:
                await place.run(go_on.wait)
        assert (threads.abandoned, threads.limiter.borrowed_tokens) == (1, 1)
        go_on.set()
        async with threads.call("the next one") as place:
            assert await place.run(lambda: 5) == 5
        assert (threads.abandoned, threads.limiter.borrowed_tokens) == (0, 0)


async def test_a_place_is_given_back_if_its_thread_never_began() -> None:
    threads = Threads(trio.CapacityLimiter(1))
    with trio.CancelScope() as scope:
        async with threads.call("never") as place:
            scope.cancel()
            await place.run(lambda: 5)
    assert (threads.abandoned, threads.limiter.borrowed_tokens) == (0, 0)


async def test_an_error_in_a_thread_gives_the_place_back() -> None:
    threads = Threads(trio.CapacityLimiter(1))

    def fails() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        async with threads.call("failing") as place:
            await place.run(fails)
    assert (threads.abandoned, threads.limiter.borrowed_tokens) == (0, 0)


# --- Sealing --------------------------------------------------------------------------------------


class Reversing:
    """A codec that anybody can open."""

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


SPEC = e.RunCreated("default", "w", "1", {"word": "secret"}, "00", retry={"kind": "never"})


@pytest.mark.parametrize(
    "body",
    [
        SPEC,
        e.TaskSucceeded(CALL, 1, "secret"),
        e.TaskFailed(CALL, 1, ErrorInfo("E", "secret", details={"a": "secret"})),
        failed(1, "secret"),
        e.HeartbeatRecorded(CALL, 1, ["secret"]),
        e.EventAccepted("paid", "secret"),
        e.ChildStarted(CALL, "run_1", "w", "1", OnParentEnd.CANCEL, SPEC),
        e.RunContinued("run_2", SPEC),
        e.ValuePublished(CALL, "key", "secret"),
        e.RunCompleted("secret"),
    ],
    ids=lambda body: body.kind,
)
def test_what_was_sealed_is_opened_again_and_hides_what_it_holds(body: e.Body) -> None:
    seal = Seal(Reversing())
    sealed = seal.close(body)
    assert "secret" not in str(sealed)
    assert seal.open(e.Entry(1, e.Micros(1), sealed)).body == body
    assert seal.close(e.RunPaused()) == e.RunPaused()


def test_every_payload_of_every_command_and_entry_is_known() -> None:
    """A new field of type JsonValue or ErrorInfo is sealed without a line anywhere."""
    sealed = {cls.__name__ for cls in e.ENTRY_KINDS.values() if _parts(cls)}
    assert {"RunCreated", "EventSent", "QuestionAnswered", "RunStalled"} <= sealed
    assert "retry" not in dict(_parts(e.RunCreated))
