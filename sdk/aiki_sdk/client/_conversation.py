"""What a handle can say to a run's code, and hear from it, beyond events: questions and values.

An answer is an entry of the run's journal, so a question is asked by sending it and watching the
run's updates for its answer. A run that continued as new took the questions that nobody had read
with it; the asker follows them by the reference ids under which they were handed over.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast, overload

from attrs import define

from aiki_sdk._durations import Duration
from aiki_sdk._errors import AskRejected, InvalidRequest, NotFound, RunEnded
from aiki_sdk._json import JsonValue
from aiki_sdk._names import check_name
from aiki_sdk._question import Question
from aiki_sdk.client._waiting import Deadline, Monotonic
from aiki_sdk.client._watching import ValueWatch
from aiki_sdk.payload import CONVERTER
from aiki_sdk.protocol import ClientPort, RunInfo, SendRequest, Update

A = TypeVar("A")
D = TypeVar("D")
T = TypeVar("T")


class _Nothing:
    """Stands for a value that was not given, where None is one."""

    def __repr__(self) -> str:
        return "nothing"


_NOTHING: Final = _Nothing()


@define(eq=False)
class _Asked:
    """A question that was sent: where it is now, and how far its run's updates were read."""

    question: Question[Any, Any]
    run_id: str
    item: int | None
    reference_id: str | None
    after: int = 0

    def move_to(self, run_id: str) -> None:
        """Follow it to the run that goes on; unread items are handed over under these names."""
        if self.reference_id is None:
            self.reference_id = f"continued:{self.run_id}:{self.item}"
        self.run_id, self.item, self.after = run_id, None, 0

    def hear(self, update: Update) -> Mapping[str, JsonValue] | None:
        """Take an update in; return the answer if it is the one to this question."""
        self.after = update.seq
        body = update.body or {}
        if self.item is None and update.kind == "event-accepted":
            here = body.get("name") == self.question.mailbox
            if here and body.get("reference_id") == self.reference_id:
                self.item = update.seq
        elif update.seq == self.item and isinstance(reference_id := body.get("reference_id"), str):
            # A name that the way there gave it, so that it could be repeated.
            self.reference_id = reference_id
        if update.kind == "question-answered" and body.get("item") == self.item:
            return body
        return None


class Conversation(ABC):
    """The part of a handle that talks with the run's code."""

    __slots__ = ()

    _port: ClientPort
    _monotonic: Monotonic
    _current: str

    @abstractmethod
    async def info(self, *, follow: bool = True) -> RunInfo:
        """Return all that is known of the run now."""

    # --- Questions --------------------------------------------------------------------------------

    @overload
    async def ask(
        self,
        question: Question[None, A],
        *,
        timeout: Duration | None = None,
        reference_id: str | None = None,
    ) -> A: ...

    @overload
    async def ask(
        self,
        question: Question[D, A],
        data: D,
        timeout: Duration | None = None,
        reference_id: str | None = None,
    ) -> A: ...

    async def ask(
        self,
        question: Question[Any, Any],
        data: object = _NOTHING,
        timeout: Duration | None = None,
        reference_id: str | None = None,
    ) -> Any:
        """Ask the run a question and wait for what its code answers.

        The question is durable before this waits: when the wait ends early, the run still gets it.

        Args:
            question: which one; the workflow must declare it with `questions=[…]`.
            data: what to ask it with.
            timeout: seconds or a timedelta to wait for the answer. Default: as long as it takes.
            reference_id: your own name for this asking; asked again with the same name it is not
                asked twice, and the one answer is returned to both.

        Raises:
            AskRejected: the workflow or the question's validator refused it, with the reason.
            RunEnded: the run has ended, or ended before it answered.
            ResultTimeout: no answer came in time.
            UnknownQuestion: the workflow declares no question of this name.
            PayloadError: the data does not fit the question's data type.
        """
        if not isinstance(cast("object", question), Question):
            message = f"question={question!r} is not valid: pass a Question"
            raise InvalidRequest(message)
        deadline = Deadline.after(timeout, self._monotonic)
        asked = await self._send_question(question, data, reference_id)
        while True:
            answer = await self._read_answer(asked, deadline)
            if answer is not None:
                return _answer(asked, answer)
            info = await self._port.get(asked.run_id)
            if info.continued_as is not None:
                asked.move_to(info.continued_as)
            elif info.status.terminal and info.seq <= asked.after:
                what = f"wait for the answer to question {question.name!r}"
                raise RunEnded(what, info.status, run_id=info.id)
            deadline.check(asked.run_id, f"answer question {question.name!r}")

    async def _send_question(
        self, question: Question[Any, Any], data: object, reference_id: str | None
    ) -> _Asked:
        body = question.encode_data(None if data is _NOTHING else data)
        request = SendRequest(
            event=question.name, data=body, reference_id=reference_id, question=True
        )
        while True:
            run_id = self._current
            try:
                receipt = await self._port.send(run_id, request)
            except RunEnded:
                if (await self.info()).id == run_id:
                    raise
            else:
                after = 0 if receipt.seq is None else receipt.seq - 1
                return _Asked(question, run_id, receipt.seq, reference_id, after)

    async def _read_answer(
        self, asked: _Asked, deadline: Deadline
    ) -> Mapping[str, JsonValue] | None:
        """Read the run's updates until its answer; None: they ended without it."""
        stream = self._port.updates(asked.run_id, after=asked.after, wait_s=deadline.left_s())
        async with stream as updates:
            async for update in updates:
                answer = asked.hear(update)
                if answer is not None:
                    return answer
        return None

    # --- Values -----------------------------------------------------------------------------------

    @overload
    async def value(self, key: str, type_: type[T]) -> T: ...

    @overload
    async def value(self, key: str, type_: type[T], default: D) -> T | D: ...

    @overload
    async def value(self, key: str, type_: object = ..., default: object = ...) -> Any: ...

    async def value(self, key: str, type_: Any = Any, default: object = _NOTHING) -> Any:
        """Return what the run published last under a key.

        Args:
            key: the value's name, as the workflow gave it to `run.publish`.
            type_: the type to convert it to. Default: the JSON value.
            default: is returned if nothing was published yet.

        Raises:
            NotFound: nothing was published under this key, and no default was given.
            PayloadError: the value is not of this type.
        """
        info = await self.info()
        if check_name("key", key) not in info.values:
            if default is not _NOTHING:
                return default
            known = ", ".join(sorted(info.values)) or "nothing yet"
            message = (
                f"run {info.id} has published no value {key!r} (published: {known}); pass a "
                "default=, or watch(…) for it"
            )
            raise NotFound(message, details={"run_id": info.id, "key": key})
        return CONVERTER.from_json(info.values[key], type_, path=f"value {key!r}")

    @overload
    def watch(self, key: str, type_: type[T]) -> ValueWatch[T]: ...

    @overload
    def watch(self, key: str, type_: object = ...) -> ValueWatch[Any]: ...

    def watch(self, key: str, type_: Any = Any) -> ValueWatch[Any]:
        """Iterate over what the run publishes under a key: the present value, then every next one.

        Args:
            key: the value's name.
            type_: the type to convert each to. Default: the JSON value.
        """
        return ValueWatch(self._port, self._current, check_name("key", key), type_)


def _answer(asked: _Asked, body: Mapping[str, JsonValue]) -> Any:
    rejection = body.get("rejection")
    if isinstance(rejection, str):
        raise AskRejected(rejection, question=asked.question.name, run_id=asked.run_id)
    return asked.question.decode_answer(body.get("answer"))
