"""What a workflow's code says to the world while it runs, and what it ends with to begin anew.

Published values, events to other runs, answers to questions, and continue-as-new. Part of the
surface of `Run`; the work is done by the executor through `MessagePort`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, Self, TypeVar, cast, overload

from aiki_sdk._errors import AskRejected, InvalidRequest
from aiki_sdk._event import Event
from aiki_sdk._names import check_name
from aiki_sdk._question import Ask, Question

if TYPE_CHECKING:
    from aiki_sdk._json import JsonValue

T = TypeVar("T")
D = TypeVar("D")
A = TypeVar("A")


class _NoData:
    """Stands for data that was not given, where None is data."""

    def __repr__(self) -> str:
        return "nothing"


_NO_DATA = _NoData()


class MessagePort(Protocol):
    """What an executor offers for the messages of a run."""

    async def publish(self, key: str, value: object) -> None:
        """Publish a value."""
        ...

    async def send(self, run_id: str, event: str, data: JsonValue) -> None:
        """Send an event to another run."""
        ...

    async def next_ask(self, question: Question[D, A]) -> Ask[D, A]:
        """Take the next question that its validator lets pass."""
        ...

    async def continue_as_new(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        """End the run and go on as a new one."""
        ...


class Asks(Generic[D, A]):
    """What `run.asks(question)` gives: an endless async iterator of the questions asked."""

    __slots__ = ("_port", "_question")

    def __init__(self, port: MessagePort, question: Question[D, A]) -> None:
        """Use `Run.asks`."""
        self._port = port
        self._question = question

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Ask[D, A]:
        """Wait durably for the next question."""
        return await self._port.next_ask(self._question)


class RunMessages(ABC):
    """The part of `Run` that talks to others."""

    __slots__ = ()

    @property
    @abstractmethod
    def _messages(self) -> MessagePort: ...

    async def publish(self, key: str, value: object) -> None:
        """Publish a value under a key; clients read the last one, and watch.

        `handle.value(key)` returns it and `handle.watch(key)` gives every next one. Published once,
        also when the code is replayed.

        Args:
            key: the value's name.
            value: anything that travels.

        Raises:
            InvalidRequest: the key is no name.
            PayloadError: the value cannot travel; it names the place in it.

        """
        await self._messages.publish(check_name("key", key), value)

    @overload
    async def send(self, run_id: str, event: Event[None]) -> None: ...
    @overload
    async def send(self, run_id: str, event: Event[T], data: T) -> None: ...

    async def send(self, run_id: str, event: Event[Any], data: object = _NO_DATA) -> None:
        """Send an event to another run of this namespace, durably and once.

        It returns when the sending is durable, not when the other run has the event. A run that
        continued as new gets it in the place where it goes on; a run that has ended, or declares no
        such event, does not get it, and the server's log says so.

        Raises:
            PayloadError: the data does not fit the event's type.

        """
        if not isinstance(cast("object", event), Event):
            message = f"event={event!r} is not valid: pass an Event"
            raise InvalidRequest(message)
        if not isinstance(cast("object", run_id), str) or not run_id:
            message = f"run_id={run_id!r} is not valid: pass the id of a run"
            raise InvalidRequest(message)
        body = event.encode(None if data is _NO_DATA else data)
        await self._messages.send(run_id, event.name, body)

    def asks(self, question: Question[D, A]) -> Asks[D, A]:
        """Iterate over what is asked: `async for ask in run.asks(approve): await ask.answer(…)`.

        It never ends by itself. What the question's validator rejects does not come here.
        """
        return Asks(self._messages, _checked(question))

    @overload
    async def answer(self, question: Question[D, A]) -> Ask[D, A]: ...
    @overload
    async def answer(
        self, question: Question[D, A], handler: Callable[[D], Awaitable[A]]
    ) -> Ask[D, A]: ...
    @overload
    async def answer(self, question: Question[D, A], handler: Callable[[D], A]) -> Ask[D, A]: ...

    async def answer(
        self, question: Question[Any, Any], handler: Callable[[Any], Any] | None = None
    ) -> Ask[Any, Any]:
        """Take the next question, waiting for it if there is none, and answer it.

        Args:
            question: which one; the workflow must declare it with `questions=[…]`.
            handler: is called with the data, and what it returns is the answer; it may be `async`
                and call tasks. `AskRejected`, raised by it, rejects. Without it the question is
                only taken: answer it with `ask.answer(…)`.

        Returns:
            What was asked.

        """
        ask = await self._messages.next_ask(_checked(question))
        if handler is None:
            return ask
        try:
            answer = handler(ask.data)
            if inspect.isawaitable(answer):
                answer = await answer
        except AskRejected as rejection:
            await ask.reject(rejection.reason or f"question {question.name!r} was rejected")
        else:
            await ask.answer(answer)
        return ask

    async def continue_as_new(self, *args: Any, **kwargs: Any) -> NoReturn:
        """End this run here and go on as a new one of the same workflow, with a clean journal.

        The reference id, the parent, labels, options and unread events move on; handles follow. The
        new run is given `args` and `kwargs`. Nothing after this call is executed, clean-up in
        `finally` blocks included: give back what the run holds before.

        Raises:
            PayloadError: an argument cannot travel.
            TypeError: the arguments do not fit the workflow's signature.

        """
        await self._messages.continue_as_new(args, kwargs)


def _checked(question: Question[D, A]) -> Question[D, A]:
    if isinstance(cast("object", question), Question):
        return question
    message = f"question={question!r} is not valid: pass a Question"
    raise InvalidRequest(message)
