"""Questions: names, types, validators, and how a workflow declares them."""

from __future__ import annotations

import pytest

from aiki_sdk import (
    DuplicateName,
    Event,
    InvalidRequest,
    PayloadError,
    Question,
    UnknownQuestion,
    workflow,
)
from aiki_sdk._run import Run


def no_negatives(amount: int) -> None:
    if amount < 0:
        message = "less than nothing"
        raise ValueError(message)


approve = Question("approve", int, bool, no_negatives)


def test_data_and_answer_are_converted_by_their_types() -> None:
    assert approve.decode_data(approve.encode_data(5)) == 5
    assert approve.decode_answer(approve.encode_answer(True)) is True
    with pytest.raises(PayloadError, match="question 'approve'"):
        approve.decode_data("five")
    with pytest.raises(PayloadError, match="answer to question 'approve'"):
        approve.decode_answer("yes")


def test_wrong_data_and_what_the_validator_raises_are_refusals() -> None:
    assert approve.refusal(5) is None
    assert approve.refusal(-5) == "less than nothing"
    assert "approve" in (approve.refusal("five") or "")


def test_a_bug_in_a_validator_is_not_a_refusal() -> None:
    def broken(amount: int) -> None:
        raise ZeroDivisionError(amount)

    with pytest.raises(ZeroDivisionError):
        Question("q", int, validator=broken).refusal(5)


def test_questions_are_equal_by_name_and_types() -> None:
    assert approve == Question("approve", int, bool)
    assert hash(approve) == hash(Question("approve", int, bool))
    assert approve != Question("approve", int, str)
    assert approve != "approve"
    assert repr(approve) == "Question('approve')"


def test_a_wrong_name_or_validator_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="question name"):
        Question("?approve")
    with pytest.raises(InvalidRequest, match="validator=5"):
        Question("approve", int, validator=5)  # type: ignore[call-overload]


def test_events_and_questions_of_one_name_have_their_own_mailboxes() -> None:
    @workflow("both", "1.0.0", events=[Event("approve", int)], questions=[approve])
    async def both(run: Run) -> None: ...

    assert both.mailboxes == ("approve", "?approve")
    assert both.question("approve") is approve
    with pytest.raises(UnknownQuestion, match="declared: approve") as caught:
        both.question("other")
    assert caught.value.declared == ("approve",)


def test_a_workflow_declares_each_question_once() -> None:
    with pytest.raises(DuplicateName, match="approve"):
        workflow("twice", "1.0.0", questions=[approve, Question("approve")])
    with pytest.raises(InvalidRequest, match="pass Question objects"):
        workflow("wrong", "1.0.0", questions=[Event("approve")])  # type: ignore[list-item]
