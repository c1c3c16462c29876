"""Questions: named, typed requests that a client asks a run, and that its code answers.

A question is kept in the run's mailbox under its name with `?` in front, which no event can have,
so that questions and events of one name never meet. An `Ask` is one question that was asked and is
not answered yet; only the workflow's code holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar, cast, overload

from attrs import frozen

from aiki_sdk._errors import AikiError, InvalidRequest
from aiki_sdk._json import JsonValue
from aiki_sdk._names import check_name
from aiki_sdk.payload import CONVERTER, encode_payload

D = TypeVar("D")
A = TypeVar("A")
D2 = TypeVar("D2")
A2 = TypeVar("A2")

QUESTION_MARK: Final = "?"
"""Before a question's name it names its mailbox. Part of the journal's format."""


def mailbox_of_question(name: str) -> str:
    """Return the name of a question's mailbox."""
    return QUESTION_MARK + name


class Question(Generic[D, A]):
    """A named request to a run, with the types of its data and of its answer.

    ``Question("approve", int, bool)`` is asked with an int and answered with a bool. Equal if name
    and types are. List it in the workflow's `questions=[...]`; take what is asked with
    `run.answer(question)` or `run.asks(question)`; ask with `handle.ask(question, data)`.
    """

    __slots__ = ("answer_type", "data_type", "name", "validator")

    name: str
    data_type: Any
    answer_type: Any
    validator: Callable[[D], object] | None

    @overload
    def __init__(self: Question[None, None], name: str) -> None: ...

    @overload
    def __init__(
        self: Question[D2, None],
        name: str,
        data_type: type[D2],
        *,
        validator: Callable[[D2], object] | None = None,
    ) -> None: ...

    @overload
    def __init__(self: Question[None, A2], name: str, *, answer_type: type[A2]) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        data_type: type[D],
        answer_type: type[A],
        validator: Callable[[D], object] | None = None,
    ) -> None: ...

    # Unions and other type forms, which no type checker can see through yet.
    @overload
    def __init__(
        self: Question[Any, Any],
        name: str,
        data_type: object = None,
        answer_type: object = None,
        validator: Callable[[Any], object] | None = None,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        data_type: Any = None,
        answer_type: Any = None,
        validator: Callable[[Any], object] | None = None,
    ) -> None:
        """Name the question and its types.

        Args:
            name: the question's name.
            data_type: the type of what is asked with; None: nothing.
            answer_type: the type of the answer; None: nothing but that it was answered.
            validator: is called with the data before the workflow gets the question; a ValueError
                or an AikiError that it raises is the rejection that the asker is given. It must
                depend on nothing but the data, for a replay may call it again.

        Raises:
            InvalidRequest: if the name is not valid, or the validator cannot be called.
        """
        if validator is not None and not callable(cast("object", validator)):
            message = f"validator={validator!r} is not valid: pass a function of the data"
            raise InvalidRequest(message)
        self.name = check_name("question", name)
        self.data_type = data_type
        self.answer_type = answer_type
        self.validator = validator

    @property
    def mailbox(self) -> str:
        """The name under which the run keeps what is asked."""
        return mailbox_of_question(self.name)

    def encode_data(self, data: D) -> JsonValue:
        """Convert what is asked with to JSON.

        Raises:
            PayloadError: naming the place in the data that does not fit.
        """
        return encode_payload(data, self.data_type, what=f"question {self.name!r}")

    def decode_data(self, json: JsonValue) -> D:
        """Convert JSON to what was asked with.

        Raises:
            PayloadError: naming the place in the JSON that does not fit.
        """
        data: D = CONVERTER.from_json(json, self.data_type, path=f"question {self.name!r}")
        return data

    def encode_answer(self, answer: A) -> JsonValue:
        """Convert an answer to JSON.

        Raises:
            PayloadError: naming the place in the answer that does not fit.
        """
        return encode_payload(answer, self.answer_type, what=f"answer to question {self.name!r}")

    def decode_answer(self, json: JsonValue) -> A:
        """Convert JSON to an answer.

        Raises:
            PayloadError: naming the place in the JSON that does not fit.
        """
        path = f"answer to question {self.name!r}"
        answer: A = CONVERTER.from_json(json, self.answer_type, path=path)
        return answer

    def refusal(self, json: JsonValue) -> str | None:
        """Return why data is rejected, by its type or by the validator; None if it is not."""
        try:
            data = self.decode_data(json)
            if self.validator is not None:
                self.validator(data)
        except AikiError as error:
            return error.message
        except ValueError as error:
            return str(error) or f"question {self.name!r} was rejected by its validator"
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Question):
            return NotImplemented
        mine = (self.name, self.data_type, self.answer_type)
        return mine == (other.name, other.data_type, other.answer_type)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Question({self.name!r})"


class AnswerPort(Protocol):
    """How an executor records what became of a question."""

    async def answer(self, question: Question[Any, Any], item: int, answer: object) -> None:
        """Answer it."""
        ...

    async def reject(self, question: Question[Any, Any], item: int, reason: str) -> None:
        """Reject it."""
        ...


@frozen
class Ask(Generic[D, A]):
    """One question that was asked and taken by the workflow's code.

    Answer or reject it once, sooner or later; until then the asker waits. If the run ends first the
    asker is told so.

    Attributes:
        question: which question it is.
        item: the seq of its acceptance in the run's journal.
        data: what it was asked with.

    """

    question: Question[D, A]
    item: int
    data: D
    _port: AnswerPort

    async def answer(self, answer: A) -> None:
        """Give the asker this answer, durably and once.

        Raises:
            PayloadError: the answer does not fit the question's answer type.
        """
        await self._port.answer(self.question, self.item, answer)

    async def reject(self, reason: str) -> None:
        """Refuse to answer; the asker gets `AskRejected` with this reason.

        Raises:
            InvalidRequest: the reason is empty.
        """
        if not isinstance(cast("object", reason), str) or not reason:
            message = f"reason={reason!r} is not valid: say in words why {self.question} is refused"
            raise InvalidRequest(message)
        await self._port.reject(self.question, self.item, reason)
