"""How a workflow's code is shaped: durable timeouts, many items at once, compensations.

Part of the surface of `Run`; the work is done by the executor through `FlowPort`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from aiki_sdk._durations import Duration, bounded_micros, duration_micros
from aiki_sdk._errors import InvalidRequest
from aiki_sdk._names import check_name
from aiki_sdk._task import AnyTask, TaskDefinition

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class TimeoutScope(Protocol):
    """What `with run.move_on_after(…) as scope` gives: how the scope fares."""

    @property
    def cancel_called(self) -> bool:
        """Whether the time was over, or `cancel` was called, before the scope was left."""
        ...

    @property
    def cancelled_caught(self) -> bool:
        """Whether the scope ended what was inside it; to be asked after the block."""
        ...

    def cancel(self) -> None:
        """End what is inside now, as if the time were over."""
        ...


class TimeoutContext(Protocol):
    """A durable timeout that was not entered yet; `with` enters it, once."""

    def __enter__(self) -> TimeoutScope: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool: ...


class FlowPort(Protocol):
    """What an executor offers for the shape of a run's code. Durations are microseconds."""

    def timeout(self, name: str, micros: int, *, fails: bool) -> TimeoutContext:
        """Make a durable timeout; one that `fails` raises `WaitTimeout` when it was reached."""
        ...

    async def map(
        self, function: Callable[[Any], Awaitable[Any]], items: Iterable[Any], limit: int | None
    ) -> list[Any]:
        """Call `function` for each item, at most `limit` at once."""
        ...

    def as_completed(
        self, function: Callable[[Any], Awaitable[Any]], items: Iterable[Any], limit: int | None
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Any, Any]]]:
        """Call `function` for each item and give the results as they come."""
        ...

    def compensate(self, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Register a task call that undoes something."""
        ...

    def on_cancel(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Register a task or function for a cancellation."""
        ...


class RunFlow(ABC):
    """The part of `Run` that gives its code a shape."""

    __slots__ = ()

    @property
    @abstractmethod
    def _flow(self) -> FlowPort:
        """The executor."""

    def move_on_after(self, name: str, delta: Duration) -> TimeoutContext:
        """Give a block so much time: `with run.move_on_after("patience", 3600) as scope:`.

        When the time is over, what is inside is cancelled, the Trio way, and the code goes on after
        the block; `scope.cancelled_caught` then says so. The time is durable: it begins with the
        first durable operation inside, survives restarts, and the run may be parked meanwhile. A
        replay ends the block at the same point. Clean-up in a shielded scope may run tasks.

        Args:
            name: identifies the timeout; what code is changed to keep is kept by this name.
            delta: seconds or a timedelta. Zero or less: over with the first operation inside.

        Raises:
            InvalidRequest: the duration is no duration, or over 100 years.

        """
        return self._timeout(name, delta, fails=False)

    def fail_after(self, name: str, delta: Duration) -> TimeoutContext:
        """Give a block so much time, and raise `WaitTimeout` if it was cancelled by that.

        Otherwise as `move_on_after`.
        """
        return self._timeout(name, delta, fails=True)

    def _timeout(self, name: str, delta: Duration, *, fails: bool) -> TimeoutContext:
        what = f"timeout {check_name('timeout', name)!r}"
        return self._flow.timeout(
            name, bounded_micros(what, duration_micros(what, delta)), fails=fails
        )

    async def map(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        limit: int | None = None,
    ) -> list[R]:
        """Call a task for each item and return all results, in the order of the items.

        The first that fails cancels the rest, and its error is raised. Items are taken from
        `items` as there is room, so it may be an iterator; each gets a branch of its own.

        Args:
            function: a task of one argument, or an async function of the workflow that calls some.
            items: what to call it with.
            limit: how many may run at once; None: 100.

        Raises:
            InvalidRequest: the limit is less than 1.

        """
        return await self._flow.map(function, items, _limit(limit))

    def as_completed(
        self,
        function: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        limit: int | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[T, R]]]:
        """Call a task for each item and take the results as they come, in the same order on replay.

        ::

            async with run.as_completed(price, items) as results:
                async for item, value in results:
                    ...

        Leaving the block cancels what is left. The first that fails cancels the block and the rest,
        and its error is raised. Arguments are those of `map`.

        Raises:
            InvalidRequest: the limit is less than 1.

        """
        return self._flow.as_completed(function, items, _limit(limit))

    def compensate(
        self, task: TaskDefinition[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Register a task call that undoes what the code has done or is about to do.

        If the run ends cancelled, or failed with no attempt left, the calls registered so far are
        made after the code has unwound, the last one first, durably and with the task's own
        retries. One that fails stops none of the others; the run then ends with a group of the
        errors. On cancellation all of them together have the workflow's `cancel_grace`.

        Raises:
            InvalidRequest: not a task.
            PayloadError: an argument cannot be converted.

        """
        if not isinstance(cast("object", task), TaskDefinition):
            message = f"run.compensate takes a task made with @task, not {task!r}"
            raise InvalidRequest(message)
        self._flow.compensate(task, args, kwargs)

    def on_cancel(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Register a task, or a function of the workflow's own code, for a cancellation only.

        It runs in one order with what `compensate` registered. A function may be `async` and do
        durable things; it runs again on replay, as all workflow code does.

        Raises:
            InvalidRequest: not callable.

        """
        if not callable(cast("object", function)):
            message = f"run.on_cancel takes a task or a function, not {function!r}"
            raise InvalidRequest(message)
        self._flow.on_cancel(function, args, kwargs)


def _limit(limit: object) -> int | None:
    if limit is None:
        return None
    if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1:
        return limit
    message = f"limit={limit!r} is not valid: pass how many may run at once, at least 1"
    raise InvalidRequest(message)
