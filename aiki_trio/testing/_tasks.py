"""What happens to task calls in a test: recorded, mocked, made to fail.

One desk serves all lives of the runtime in a test, so that what a test said and what it asks for
outlast crashes and restarts. Tasks are told apart by name, as the journal does.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, cast

import trio
from attrs import define, field

from aiki_actors.worker import Proceed
from aiki_sdk import AnyTask, Clock, InvalidRequest, current_task
from aiki_sdk._task import TaskDefinition

from ._time import TestTime


class InjectedFailure(Exception):
    """What `aiki.fail` makes a task fail with, unless the test names another error."""


class _Pending:
    """Stands for a result that is not there."""

    def __repr__(self) -> str:
        return "pending"


_PENDING: Final = _Pending()


@define(eq=False)
class TaskCall:
    """One attempt of a task, as the code that was called saw it.

    Attributes:
        task: the task's name.
        args: its positional arguments.
        kwargs: its keyword arguments.
        attempt: 1 for the first attempt of the call.
        run_id: the run that made the call.
        idempotency_key: the same for every attempt of one call, different for any other call.
        at: when the attempt began, in the test's time.
        life: which life of the runtime it ran in; 1 until the first `restart`.
        error: what it raised; `trio.Cancelled` if it was cut off. None: it did not raise.

    """

    task: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    attempt: int
    run_id: str
    idempotency_key: str
    at: datetime
    life: int
    error: BaseException | None = field(default=None, init=False)
    _result: object = field(default=_PENDING, init=False)

    @property
    def result(self) -> Any:
        """What it returned; None if it did not (see `done`)."""
        return None if self._result is _PENDING else self._result

    @property
    def done(self) -> bool:
        """Whether it returned."""
        return self._result is not _PENDING

    def returned(self, value: object) -> None:
        """Note what the attempt returned."""
        self._result = value


@define(eq=False)
class TaskDesk:
    """Stands between the worker and the tasks; see `aiki_actors.worker.WorkerHooks.invoke`.

    Attributes:
        calls: every attempt, in the order in which they began.
        life: the number of the runtime's present life.
        time: held while a plain `def` task runs in its thread.

    """

    calls: list[TaskCall] = field(factory=lambda: list[TaskCall](), init=False)
    life: int = field(default=1, init=False)
    clock: Clock | None = field(default=None, init=False)
    time: TestTime | None = field(default=None, init=False)
    _mocks: dict[str, Callable[..., Any]] = field(
        factory=lambda: dict[str, Callable[..., Any]](), init=False
    )
    _failures: dict[str, deque[BaseException]] = field(
        factory=lambda: dict[str, deque[BaseException]](), init=False
    )

    def mock(self, task: AnyTask, function: Callable[..., Any]) -> None:
        """Call `function` in place of the task's own."""
        if not callable(cast("object", function)):
            message = (
                f"mock({task!r}, {function!r}) is not possible: pass a function that takes the "
                "task's arguments, such as lambda order: 'charge-1'"
            )
            raise InvalidRequest(message)
        self._mocks[_name(task)] = function

    def fail(self, task: AnyTask, times: int, error: BaseException | type[BaseException]) -> None:
        """Make the next `times` attempts of the task fail with `error`."""
        if times < 1:
            message = f"times={times!r} is not valid: pass how many attempts fail, 1 or more"
            raise InvalidRequest(message)
        failures = self._failures.setdefault(_name(task), deque())
        failures.extend([error() if isinstance(error, type) else error] * times)

    def calls_of(self, task: AnyTask) -> list[TaskCall]:
        """Return the attempts of one task, in the order in which they began."""
        name = _name(task)
        return [call for call in self.calls if call.task == name]

    async def invoke(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any], proceed: Proceed
    ) -> Any:
        """Run one attempt: fail it, mock it, or let it happen; and keep what became of it."""
        assert self.clock is not None, "the kit sets the clock before it starts the runtime"
        context = current_task()
        call = TaskCall(
            task.name,
            args,
            kwargs,
            context.attempt,
            context.run_id,
            context.idempotency_key,
            self.clock.now(),
            self.life,
        )
        self.calls.append(call)
        try:
            value = await self._run(task, args, kwargs, proceed)
        except BaseException as error:
            call.error = error
            raise
        call.returned(value)
        return value

    async def _run(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any], proceed: Proceed
    ) -> Any:
        failures = self._failures.get(task.name)
        if failures:
            await trio.lowlevel.checkpoint()
            raise failures.popleft()
        function = self._mocks.get(task.name)
        if function is not None:
            await trio.lowlevel.checkpoint()
            value = function(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value
        if task.is_async or self.time is None:
            return await proceed()
        with self.time.held():
            return await proceed()


def _name(task: object) -> str:
    if isinstance(task, TaskDefinition):
        return task.name
    message = f"{task!r} is not a task; pass the function that is decorated with @task"
    raise InvalidRequest(message)
