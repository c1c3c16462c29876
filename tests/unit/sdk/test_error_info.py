"""`ErrorInfo`: what is kept of an exception is bounded, storable and the same after JSON."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from aiki_sdk import AikiError, ErrorInfo, NonRetryable, RunFailed, dumps, loads
from aiki_sdk._error_info import (
    DEPTH_MAX,
    GROUP_MAX,
    LEAVES_MAX,
    MESSAGE_BYTES_MAX,
    TRACEBACK_BYTES_MAX,
)


class CardDeclined(Exception):
    pass


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def caught(error: BaseException) -> ErrorInfo:
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001
        return ErrorInfo.from_exception(raised)


def test_type_message_and_traceback_are_kept() -> None:
    info = caught(CardDeclined("no money"))
    assert info.type == f"{__name__}.CardDeclined"
    assert info.message == "no money"
    assert "in caught" in (info.traceback or "")
    assert str(info).endswith("CardDeclined: no money")


def test_builtin_types_have_no_module() -> None:
    assert ErrorInfo.from_exception(ValueError("x")) == ErrorInfo("ValueError", "x")


def test_the_cause_chain_is_kept() -> None:
    try:
        try:
            raise KeyError("a")
        except KeyError as error:
            raise ValueError("b") from error
    except ValueError as error:
        info = ErrorInfo.from_exception(error)
    assert info.cause is not None
    assert (info.cause.type, info.cause.message) == ("KeyError", "'a'")


def test_a_suppressed_context_is_no_cause() -> None:
    try:
        try:
            raise KeyError("a")
        except KeyError:
            raise ValueError("b") from None
    except ValueError as error:
        info = ErrorInfo.from_exception(error)
    assert info.cause is None


def test_an_endless_or_circular_chain_is_cut() -> None:
    first = error = ValueError("0")
    for index in range(50):
        error.__cause__ = ValueError(str(index))
        error = error.__cause__
    depth, info = 0, ErrorInfo.from_exception(first)
    while info.cause is not None:
        depth, info = depth + 1, info.cause
    assert depth == DEPTH_MAX - 1

    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    circular = ErrorInfo.from_exception(one)
    assert circular.cause is not None
    assert circular.cause.cause is None


def test_the_members_of_a_group_are_kept_and_counted() -> None:
    group = ExceptionGroup("many", [ValueError(str(index)) for index in range(GROUP_MAX + 3)])
    details: Any = ErrorInfo.from_exception(group).details
    assert details["omitted"] == 3
    assert [member["message"] for member in details["exceptions"]] == [
        str(index) for index in range(GROUP_MAX)
    ]


def test_a_group_s_message_names_the_errors_in_it() -> None:
    one = ExceptionGroup("Exceptions from Trio nursery", [ValueError("boom")])
    assert str(ErrorInfo.from_exception(one)) == (
        "ExceptionGroup: Exceptions from Trio nursery (1 sub-exception): ValueError: boom"
    )
    inner = ExceptionGroup("inner", [OSError()])
    nested = ExceptionGroup("outer", [KeyError("a"), inner, one])
    assert ErrorInfo.from_exception(nested).message == (
        "outer (3 sub-exceptions): KeyError: 'a'; OSError; ValueError: boom"
    )


def test_what_a_group_s_message_names_is_bounded() -> None:
    errors = [ValueError(str(index) + "x" * 100_000) for index in range(LEAVES_MAX + 3)]
    message = ErrorInfo.from_exception(ExceptionGroup("many", errors)).message
    assert len(message.encode()) <= MESSAGE_BYTES_MAX
    assert all(f"ValueError: {index}x" in message for index in range(LEAVES_MAX))
    assert message.endswith("; and 3 more")
    deep: Exception = ValueError("boom")
    for _ in range(DEPTH_MAX * 20):
        deep = ExceptionGroup[Exception]("level", [deep])
    assert ErrorInfo.from_exception(deep).message.endswith(": ValueError: boom")


def test_code_details_and_retryable_of_our_own_errors_are_kept() -> None:
    info = ErrorInfo.from_exception(RunFailed(ErrorInfo("ValueError", "x"), run_id="run_1"))
    assert info.code == "run-failed"
    assert isinstance(info.details, dict)
    assert info.details["run_id"] == "run_1"
    assert not ErrorInfo.from_exception(NonRetryable("no")).retryable
    assert ErrorInfo.from_exception(ValueError("x")).retryable


def test_an_error_that_cannot_be_printed_is_kept_all_the_same() -> None:
    assert "RuntimeError" in ErrorInfo.from_exception(Unprintable()).message


def test_message_and_traceback_are_bounded() -> None:
    info = caught(ValueError("é" * 100_000))
    assert len(info.message.encode()) <= MESSAGE_BYTES_MAX
    assert info.message.endswith("…")

    def deep(levels: int) -> None:
        if levels:
            # Two functions by turns, so that the frames are not folded as repetitions.
            deeper(levels - 1)
        raise ValueError

    def deeper(levels: int) -> None:
        deep(levels)

    with pytest.raises(ValueError) as raised:  # noqa: PT011
        deep(300)
    text = ErrorInfo.from_exception(raised.value).traceback or ""
    assert len(text.encode()) <= TRACEBACK_BYTES_MAX
    assert text.endswith("raise ValueError\n") or "raise ValueError" in text[-200:]


def test_text_that_cannot_be_stored_is_escaped() -> None:
    info = ErrorInfo.from_exception(ValueError("a\x00b\ud800"))
    assert info.message == "a\\x00b\\ud800"
    dumps(info.to_json())


infos: st.SearchStrategy[ErrorInfo] = st.deferred(
    lambda: st.builds(
        ErrorInfo,
        type=st.sampled_from(["ValueError", "app.CardDeclined"]),
        message=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
        traceback=st.none() | st.just("  File ..."),
        cause=st.none() | infos,
        code=st.none() | st.just("payload"),
        retryable=st.booleans(),
        details=st.none() | st.just({"a": [1]}),
    )
)


@given(infos)
def test_the_json_form_reads_back_the_same(info: ErrorInfo) -> None:
    body = loads(dumps(info.to_json()))
    assert isinstance(body, dict)
    assert ErrorInfo.from_json(body) == info


@given(st.dictionaries(st.sampled_from(["type", "message", "cause", "code"]), st.integers()))
def test_a_damaged_json_form_still_reads(body: dict[str, Any]) -> None:
    assert ErrorInfo.from_json(body).type == "Exception"


def test_the_base_error_needs_no_message() -> None:
    assert str(AikiError()) == "error"
