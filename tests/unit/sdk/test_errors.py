"""The error family: stable codes, messages that help, and the same error after the wire."""

import copy
import re
from pathlib import Path

import pytest

import aiki_sdk
from aiki_sdk import (
    ERRORS_BY_CODE,
    AikiError,
    ChildFailed,
    DuplicateName,
    ErrorInfo,
    IllegalTransition,
    LimitExceeded,
    NotFound,
    PayloadError,
    PayloadTooLarge,
    RecordedTypeMismatch,
    RetryAfter,
    RunCancelled,
    RunFailed,
    RunStalled,
    TaskFailed,
    UnknownEvent,
    UnknownWorkflow,
    WaitTimeout,
    error_from_wire,
)

INFO = ErrorInfo(type="ValueError", message="no such card", cause=ErrorInfo("KeyError", "'x'"))

EXAMPLES: list[AikiError] = [
    DuplicateName("workflow", "pay@1", "a:1", "b:2"),
    LimitExceeded("live children", 10_000, 10_001, "wait for some to end"),
    PayloadError.at("order.items[3].price", object(), "send a number"),
    PayloadTooLarge("order", 3_000_000, 2_097_152),
    UnknownEvent("paid", "order-processing", ["refunded", "settled"]),
    UnknownWorkflow("order", "2.0.0", ["order@1.0.0"]),
    IllegalTransition("pause", "completed", run_id="run_1"),
    RunFailed(INFO, run_id="run_1"),
    RunCancelled("by request", run_id="run_1"),
    RunStalled("worker lost 5 times", run_id="run_1"),
    TaskFailed(INFO, task="charge-card", attempts=5),
    ChildFailed(INFO, child="run_2", status="cancelled"),
    RetryAfter(2.5),
    RecordedTypeMismatch("result of task 'x'", "result.id", "missing"),
    NotFound("run 'run_1' does not exist in namespace 'default'"),
]


def test_every_error_of_the_family_is_importable_and_has_its_own_code() -> None:
    for code, cls in ERRORS_BY_CODE.items():
        assert getattr(aiki_sdk, cls.__name__) is cls
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert cls.code == code


def test_the_codes_never_change() -> None:
    """What clients in other languages match on; adding is fine, renaming is not."""
    assert {
        "child-failed", "divergence", "duplicate-name", "illegal-transition", "invalid-request",
        "journal-version", "limit-exceeded", "not-found", "payload", "payload-too-large",
        "recorded-type-mismatch", "reference-conflict", "result-timeout", "run-cancelled",
        "run-ended", "run-failed", "run-timeout", "stale-claim", "storage", "task-failed",
        "task-timeout", "unauthorized", "unavailable", "unknown-event", "unknown-workflow",
        "wait-timeout",
    } <= ERRORS_BY_CODE.keys()  # fmt: skip


def test_the_tree_in_the_docstring_is_complete() -> None:
    text = (Path(aiki_sdk.__file__).parent / "_errors.py").read_text(encoding="utf-8")
    for code, cls in ERRORS_BY_CODE.items():
        if cls is not AikiError:
            assert re.search(rf"─ {cls.__name__} +{code}\b", text), cls


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.code)
def test_an_error_is_the_same_after_the_wire(error: AikiError) -> None:
    rebuilt = error_from_wire(error.code, error.message, error.details)
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    public = [name for name in dir(type(error)) if isinstance(getattr(type(error), name), property)]
    for name in public:
        assert getattr(rebuilt, name) == getattr(error, name), name


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.code)
def test_an_error_can_be_copied(error: AikiError) -> None:
    copied = copy.copy(error)
    assert type(copied) is type(error)
    assert (copied.message, copied.details) == (error.message, error.details)


def test_an_unknown_code_becomes_the_base_class_and_keeps_the_code() -> None:
    error = error_from_wire("of-a-newer-release", "something new")
    assert type(error) is AikiError
    assert error.details["code"] == "of-a-newer-release"


def test_details_of_a_wrong_shape_do_not_break_an_error() -> None:
    error = error_from_wire("task-failed", "task failed", {"error": 3, "attempts": "x"})
    assert isinstance(error, TaskFailed)
    assert error.error.message == "task failed"
    assert error.attempts == 0


def test_messages_name_the_thing_and_the_fix() -> None:
    assert "declared: refunded, settled" in str(EXAMPLES[4])
    assert "registered: order@1.0.0" in str(EXAMPLES[5])
    assert str(EXAMPLES[6]) == "cannot pause: run run_1 is completed"
    assert "order.items[3].price (object)" in str(EXAMPLES[2])
    assert "3,000,000" in str(EXAMPLES[3])


def test_timeouts_are_timeout_errors() -> None:
    with pytest.raises(TimeoutError):
        raise WaitTimeout
