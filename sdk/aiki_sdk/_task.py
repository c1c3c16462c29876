"""`@task`: a function that is durable inside a workflow and itself everywhere else.

What a task's type says, and why. Inside a workflow every task is awaited, also one that was written
as a plain `def`; outside, a plain `def` task returns its result at once. One signature cannot say
both (`R & Awaitable[R]` is not a type), so `SyncTask` says what holds in workflows, a coroutine:
that is where tasks are mostly called, and where the mistake to catch is made, for type checkers
report a coroutine that nobody awaits. Plain code that wants the plain type
calls ``render_invoice.function(order)``; ``render_invoice(order)`` does the same at run time.

Calls are typed `Coroutine[object, object, R]`, not `Coroutine[Any, Any, R]`: with an Any in an
argument that fits several overloads, such as those of `Run.gather`, mypy gives up and infers Any.
"""

# Every coroutine function is also a function, so the overloads overlap; the first that fits counts.
# mypy: disable-error-code="overload-overlap"

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from attrs import evolve, frozen

from aiki_sdk._context import current_workflow
from aiki_sdk._durations import Duration, optional_seconds
from aiki_sdk._errors import InvalidRequest
from aiki_sdk._json import JsonValue
from aiki_sdk._names import check_name, name_of_function
from aiki_sdk._retry import Retry
from aiki_sdk._signature import CallSignature

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

TaskRuntime: TypeAlias = Literal["trio", "thread", "asyncio", "process"]
Upcast: TypeAlias = Callable[[JsonValue], JsonValue]

_ASYNC_RUNTIMES: Final = ("trio", "asyncio")
_SYNC_RUNTIMES: Final = ("thread", "process")
_EMPTY: Final[Mapping[str, Any]] = {}


class _Unset:
    """Stands for an option that was not given, where None means something."""

    def __repr__(self) -> str:
        return "unset"


_UNSET: Final = _Unset()


@frozen
class TaskSettings:
    """The options of a task, or of one call of it; no part of the call's address.

    Attributes:
        retry: when a failed attempt is followed by another.
        timeout_s: seconds that one attempt may take; None: any time.
        heartbeat_timeout_s: seconds that may pass between heartbeats; None: no heartbeats needed.
        runtime: where the function runs.
        pool: the workers that are to run it; None: those that run the workflow. Without effect in
            this version: see `task`.
        at_most_once: never run it again if its worker was lost half-way.
    """

    retry: Retry
    timeout_s: float | None
    heartbeat_timeout_s: float | None
    runtime: TaskRuntime
    pool: str | None
    at_most_once: bool


class TaskDefinition(Generic[P, R_co]):
    """What `Task` and `SyncTask` share: a name, a function, settings, and how its calls travel.

    Attributes:
        name: the task's name, part of its address.
        settings: the options that hold for calls of this object.
        signature: binds and converts arguments and results.
        upcast: makes the form of today of an older recorded result, or None.
    """

    name: str
    settings: TaskSettings
    signature: CallSignature
    upcast: Upcast | None
    is_async: bool
    __name__: str
    __qualname__: str
    _function: Callable[..., Any]

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        settings: TaskSettings,
        upcast: Upcast | None,
        signature: CallSignature,
    ) -> None:
        """Use `@task`."""
        functools.update_wrapper(cast("Callable[..., Any]", self), function)
        self._function = function
        self.name = name
        self.settings = settings
        self.upcast = upcast
        self.signature = signature
        self.is_async = settings.runtime in _ASYNC_RUNTIMES

    def options(
        self,
        *,
        retry: Retry | None = None,
        timeout: Duration | _Unset | None = _UNSET,
        heartbeat_timeout: Duration | _Unset | None = _UNSET,
        pool: str | _Unset | None = _UNSET,
    ) -> Self:
        """Return the same task with other options, for one call: ``t.options(timeout=5)(x)``.

        Args:
            retry: another policy.
            timeout: seconds or a timedelta for one attempt; None takes the limit away.
            heartbeat_timeout: seconds or a timedelta between heartbeats; None takes it away.
            pool: the workers that are to run it; None: those that run the workflow. Without effect
                in this version: see `task`.

        Raises:
            InvalidRequest: naming the option and its value.
        """
        settings = self.settings
        if retry is not None:
            settings = evolve(settings, retry=_check_retry(retry))
        if not isinstance(timeout, _Unset):
            settings = evolve(settings, timeout_s=optional_seconds("timeout", timeout, zero=False))
        if not isinstance(heartbeat_timeout, _Unset):
            limit_s = optional_seconds("heartbeat_timeout", heartbeat_timeout, zero=False)
            settings = evolve(settings, heartbeat_timeout_s=limit_s)
        if not isinstance(pool, _Unset):
            settings = evolve(settings, pool=None if pool is None else check_name("pool", pool))
        return type(self)(self._function, self.name, settings, self.upcast, self.signature)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _EMPTY) -> dict[str, Any]:
        """Return every parameter's value by name, defaults applied.

        Raises:
            TypeError: if the arguments do not fit the signature.
        """
        return self.signature.bind(args, kwargs)

    def encode_input(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = _EMPTY
    ) -> tuple[dict[str, JsonValue], str]:
        """Return the arguments as a JSON object, and the hash of its canonical form.

        Raises:
            TypeError: if the arguments do not fit the signature.
            PayloadError: naming the parameter and the place in it that cannot be converted.
            PayloadTooLarge: if the input is larger than 2 MiB.
        """
        return self.signature.encode_input(args, kwargs)

    def decode_input(self, json: JsonValue) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments that an input stands for.

        Raises:
            PayloadError: naming the parameter that is missing, unknown or does not fit.
        """
        return self.signature.decode_input(json)

    def encode_output(self, value: object) -> JsonValue:
        """Return a result as JSON, by the declared return type.

        Raises:
            PayloadError: naming the place in the result that cannot be converted.
            PayloadTooLarge: if it is larger than 2 MiB.
        """
        return self.signature.encode_output(value)

    def decode_output(self, json: JsonValue) -> R_co:
        """Return a recorded result, by the declared return type, through `upcast` if need be.

        Raises:
            RecordedTypeMismatch: naming the place that no longer fits.
        """
        return cast("R_co", self.signature.decode_output(json, self.upcast))

    def __repr__(self) -> str:
        return f"<task {self.name!r} of {self._function.__module__}.{self._function.__qualname__}>"

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        port = current_workflow.get()
        if port is None:
            return self._function(*args, **kwargs)
        return port.call_task(self, args, kwargs)


AnyTask: TypeAlias = TaskDefinition[..., Any]


class Task(TaskDefinition[P, R_co]):
    """A task written as `async def`."""

    @property
    def function(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """The function itself, never durable."""
        return self._function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, R_co]:
        """Call it: durably inside a workflow, else as the function that it is."""
        return cast("Coroutine[object, object, R_co]", self._call(args, kwargs))


class SyncTask(TaskDefinition[P, R_co]):
    """A task written as `def`: awaited inside a workflow, plain outside; see this module's text."""

    @property
    def function(self) -> Callable[P, R_co]:
        """The function itself, never durable."""
        return self._function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, R_co]:
        """Call it: durably inside a workflow; elsewhere it runs and returns its plain result."""
        return cast("Coroutine[object, object, R_co]", self._call(args, kwargs))


class _Decorator(Protocol):
    """What `@task(...)` returns."""

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


@overload
def task(  # pyright: ignore[reportOverlappingOverload]
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> Task[P, R]: ...


@overload
def task(function: Callable[P, R], /) -> SyncTask[P, R]: ...


@overload
def task(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    runtime: TaskRuntime | None = None,
    pool: str | None = None,
    at_most_once: bool = False,
    upcast: Upcast | None = None,
) -> _Decorator: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    runtime: TaskRuntime | None = None,
    pool: str | None = None,
    at_most_once: bool = False,
    upcast: Upcast | None = None,
) -> Any:
    """Make a task of a function.

    Called inside a workflow it is durable: its result is recorded before the workflow goes on, and
    on replay the recorded result is returned. Called anywhere else it is just the function.

    Args:
        function: the function, when used without parentheses.
        name: part of the address of recorded calls, so renaming it is a change that old runs see.
            Default: the function's name with dashes.
        retry: when a failed attempt is followed by another. Default: never.
        timeout: seconds or a timedelta that one attempt may take. Default: any time.
        heartbeat_timeout: seconds or a timedelta that may pass without
            `current_task().heartbeat()`.
        runtime: `trio` or `asyncio` for `async def`, `thread` or `process` for `def`. Default:
            `trio` and `thread`.
        pool: the workers that are to run it. Default: those that run the workflow. Without effect
            in this version: a task runs in the worker of its workflow, which warns once in its log.
            To route work to a pool, give it to a child: ``run.start_child(..., pool=...)``.
        at_most_once: journal the start first, and fail with `OutcomeUnknown` instead of running it
            again when its worker was lost.
        upcast: makes the JSON of today's return type of an older recorded result.

    Raises:
        InvalidRequest: naming the option and its value.
    """

    def make(function: Callable[..., Any]) -> Task[..., Any] | SyncTask[..., Any]:
        _check_function(function)
        is_async = inspect.iscoroutinefunction(function)
        task_name = check_name(
            "task", name_of_function(function.__name__) if name is None else name
        )
        settings = TaskSettings(
            retry=Retry.never() if retry is None else _check_retry(retry),
            timeout_s=optional_seconds("timeout", timeout, zero=False),
            heartbeat_timeout_s=optional_seconds(
                "heartbeat_timeout", heartbeat_timeout, zero=False
            ),
            runtime=_check_runtime(runtime, is_async=is_async, name=task_name),
            pool=None if pool is None else check_name("pool", pool),
            at_most_once=at_most_once,
        )
        signature = CallSignature(function, f"task {task_name!r}")
        kind: type[Task[..., Any] | SyncTask[..., Any]] = Task if is_async else SyncTask
        return kind(function, task_name, settings, upcast, signature)

    return make if function is None else make(function)


def _check_function(function: object) -> None:
    if isinstance(function, TaskDefinition):
        message = f"{function!r} is a task already; decorate it once"
        raise InvalidRequest(message)
    if not inspect.isfunction(function):
        message = f"@task takes a function, not {function!r}; for options write @task(name=...)"
        raise InvalidRequest(message)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        message = f"{function.__qualname__} is a generator; a task returns one value: return a list"
        raise InvalidRequest(message)


def _check_retry(retry: object) -> Retry:
    if isinstance(retry, Retry):
        return retry
    message = f"retry={retry!r} is not valid: pass Retry.fixed(...) or another policy"
    raise InvalidRequest(message)


def _check_runtime(runtime: TaskRuntime | None, *, is_async: bool, name: str) -> TaskRuntime:
    if runtime is None:
        return "trio" if is_async else "thread"
    if runtime in (_ASYNC_RUNTIMES if is_async else _SYNC_RUNTIMES):
        return runtime
    kind, allowed = ("async def", _ASYNC_RUNTIMES) if is_async else ("def", _SYNC_RUNTIMES)
    message = (
        f"runtime={runtime!r} is not valid for task {name!r}, which is a plain `{kind}`: "
        f"use {' or '.join(map(repr, allowed))}"
    )
    raise InvalidRequest(message)
