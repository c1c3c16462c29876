"""`Run`: what a workflow's code is given, and all that it may ask of the world durably.

Everything here is the same on every replay: what was recorded is returned, what was not is done
once and recorded. The work is done by the executor through `RunPort`; this class is the surface:
names, types and checks of what users pass.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload
from uuid import UUID

from attrs import frozen

from aiki_sdk._durations import (
    Duration,
    bounded_micros,
    duration_micros,
    optional_seconds,
)
from aiki_sdk._errors import InvalidRequest
from aiki_sdk._names import check_name
from aiki_sdk._run_flow import FlowPort, RunFlow
from aiki_sdk._run_messages import MessagePort, RunMessages
from aiki_sdk._workflow import Workflow
from aiki_sdk.protocol import OnConflict, OnParentEnd, Slept

if TYPE_CHECKING:
    from aiki_sdk._event import Event
    from aiki_sdk._retry import Retry

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")


@frozen
class RunFacts:
    """What never changes while an attempt of a run is executed."""

    id: str
    name: str
    version: str
    reference_id: str | None
    parent_id: str | None
    attempt: int
    started_at: datetime


@frozen
class ChildOptions:
    """How a child run is started; what is None follows the child's workflow."""

    reference_id: str | None
    on_parent_end: OnParentEnd
    on_conflict: OnConflict
    labels: Mapping[str, str]
    retry: Retry | None
    timeout_s: float | None
    pool: str | None


class RunPort(FlowPort, MessagePort, Protocol):
    """What an executor offers to the run that it executes. Durations are microseconds."""

    @property
    def facts(self) -> RunFacts:
        """The run's facts."""
        ...

    @property
    def replaying(self) -> bool:
        """Whether recorded results that the code has not asked for yet are left."""
        ...

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """The run's logger, silent during replay and after eviction."""
        ...

    async def sleep(self, name: str, micros: int) -> Slept:
        """Sleep durably."""
        ...

    async def wait(self, event: Event[T], micros: int | None) -> T:
        """Take the next unread item of an event."""
        ...

    async def gather(self, awaitables: tuple[Awaitable[Any], ...]) -> list[Any]:
        """Await all, each in a branch of its own."""
        ...

    async def race(self, entries: Mapping[str, Awaitable[Any]]) -> tuple[str, Any]:
        """Await the first of them, each in a branch of its own."""
        ...

    async def start_child(
        self,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: ChildOptions,
    ) -> str:
        """Start a child and return its run id."""
        ...

    async def child_result(
        self, workflow: Workflow[..., Any], child_id: str, micros: int | None
    ) -> Any:
        """Wait for a child's end and return its result."""
        ...

    async def local(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Record the result of a small function."""
        ...

    def now(self) -> datetime:
        """Return the time of the last result that the code was given."""
        ...

    def uuid4(self, name: str | None) -> UUID:
        """Return a UUID derived from the call's own address and branch."""
        ...

    def random(self, name: str | None) -> float:
        """Return a number in [0, 1) derived from the call's own address and branch."""
        ...


@frozen
class ChildRun(Generic[R_co]):
    """A child that a workflow has started; a handle for the parent's own code."""

    id: str
    workflow: Workflow[..., R_co]
    _port: RunPort

    async def result(self, timeout: Duration | None = None) -> R_co:
        """Wait durably for the child's end and return what it returned.

        Args:
            timeout: seconds or a timedelta to wait at most; the child goes on after it.

        Raises:
            ChildFailed: the child failed or was cancelled.
            WaitTimeout: it did not end in time.

        """
        result: R_co = await self._port.child_result(self.workflow, self.id, _timeout(timeout))
        return result


class Run(RunFlow, RunMessages):
    """The run whose code this is. Given to the workflow as its first argument."""

    __slots__ = ("_port",)

    def __init__(self, port: RunPort) -> None:
        """Made by the executor."""
        self._port = port

    @property
    def _flow(self) -> FlowPort:
        return self._port

    @property
    def _messages(self) -> MessagePort:
        return self._port

    def __repr__(self) -> str:
        return f"<run {self.id} of {self.name}@{self.version}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._port.facts.id

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self._port.facts.name

    @property
    def version(self) -> str:
        """The workflow's version."""
        return self._port.facts.version

    @property
    def reference_id(self) -> str | None:
        """The reference id that the run was started with, if any."""
        return self._port.facts.reference_id

    @property
    def parent_id(self) -> str | None:
        """The run that started this one as its child, if any."""
        return self._port.facts.parent_id

    @property
    def attempt(self) -> int:
        """The attempt of the whole run, from 1."""
        return self._port.facts.attempt

    @property
    def started_at(self) -> datetime:
        """When the run was started (UTC)."""
        return self._port.facts.started_at

    @property
    def replaying(self) -> bool:
        """Whether the code is being brought back to where it was; for logging only."""
        return self._port.replaying

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names the run and is silent during replay."""
        return self._port.logger

    async def sleep(
        self,
        name: str,
        duration: Duration | None = None,
        *,
        days: float | None = None,
        hours: float | None = None,
        minutes: float | None = None,
        seconds: float | None = None,
    ) -> Slept:
        """Sleep durably: nothing is held while it lasts, and restarts do not prolong it.

        Args:
            name: identifies the sleep; what code is changed to keep is kept by this name.
            duration: a timedelta or seconds; or give days, hours, minutes, seconds.
            days: added to the rest.
            hours: added to the rest.
            minutes: added to the rest.
            seconds: added to the rest.

        Returns:
            `Slept.ELAPSED`, or `Slept.WOKEN` if an operator ended it early.

        Raises:
            InvalidRequest: no duration at all, or one over 100 years.

        """
        check_name("sleep", name)
        given = (days, hours, minutes, seconds)
        if duration is None and given == (None, None, None, None):
            message = f"sleep {name!r} has no duration; pass a timedelta, or hours=…"
            raise InvalidRequest(message)
        parts = timedelta(
            days=days or 0, hours=hours or 0, minutes=minutes or 0, seconds=seconds or 0
        )
        micros = round(parts / timedelta(microseconds=1))
        if duration is not None:
            micros += duration_micros(f"sleep {name!r}", duration)
        return await self._port.sleep(name, bounded_micros(f"sleep {name!r}", micros))

    async def wait(self, event: Event[T], timeout: Duration | None = None) -> T:
        """Take the next unread item of `event`, waiting for it if there is none.

        Args:
            event: which one; the workflow must declare it with `events=[…]`.
            timeout: seconds or a timedelta to wait at most; None: for ever.

        Raises:
            WaitTimeout: none came in time; one that comes later stays in the mailbox.

        """
        return await self._port.wait(event, _timeout(timeout))

    @overload
    async def gather(self, a: Awaitable[T1], b: Awaitable[T2], /) -> tuple[T1, T2]: ...
    @overload
    async def gather(
        self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def gather(
        self, a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], d: Awaitable[T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def gather(self, *awaitables: Awaitable[T]) -> tuple[T, ...]: ...

    async def gather(self, *awaitables: Awaitable[Any]) -> tuple[Any, ...]:
        """Await all of them at once and return their results in order.

        The first that fails cancels the rest, and its error is raised.
        """
        return tuple(await self._port.gather(awaitables))

    async def race(self, **entries: Awaitable[Any]) -> tuple[str, Any]:
        """Await the first of them to finish: `name, value = await run.race(paid=…, late=…)`.

        The rest are cancelled. The same one wins on every replay.
        """
        if not entries:
            message = "run.race() was called without anything to await; name at least one"
            raise InvalidRequest(message)
        return await self._port.race(entries)

    async def start_child(
        self,
        workflow: Workflow[P, R],
        /,
        *args: Any,
        reference_id: str | None = None,
        on_parent_end: OnParentEnd | str = OnParentEnd.ABANDON,
        on_conflict: OnConflict | str = OnConflict.ERROR,
        labels: Mapping[str, str] | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
        pool: str | None = None,
        **kwargs: Any,
    ) -> ChildRun[R]:
        """Start a child run, once, and go on without waiting for it.

        Args:
            workflow: what to run.
            args: its positional arguments.
            reference_id: names the child among the runs of its workflow.
            on_parent_end: `abandon` it or `cancel` it if this run ends first.
            on_conflict: what to do when the reference id names a run already. If that is to wait
                for that run, `ChildRun.id` and `RunInfo.children` show an id of which there is no
                run, only this one's name for it; ``client.find(workflow, reference_id)`` finds it.
            labels: to find it by.
            retry: another policy than the workflow's own.
            timeout: seconds or a timedelta for the whole child.
            pool: another pool than the workflow's own.
            kwargs: its keyword arguments.

        """
        if not isinstance(cast("object", workflow), Workflow):
            message = f"start_child takes a workflow made with @workflow, not {workflow!r}"
            raise InvalidRequest(message)
        options = ChildOptions(
            reference_id=reference_id,
            on_parent_end=OnParentEnd(on_parent_end),
            on_conflict=OnConflict(on_conflict),
            labels=dict(labels or {}),
            retry=retry,
            timeout_s=optional_seconds("timeout", timeout, zero=False),
            pool=pool,
        )
        child_id = await self._port.start_child(workflow, args, kwargs, options)
        return ChildRun(child_id, workflow, self._port)

    async def call(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Start a child run and return its result; it is cancelled if this run ends first.

        Raises:
            ChildFailed: it failed or was cancelled.

        """
        options = ChildOptions(None, OnParentEnd.CANCEL, OnConflict.ERROR, {}, None, None, None)
        child_id = await self._port.start_child(workflow, args, kwargs, options)
        result: R = await self._port.child_result(workflow, child_id, None)
        return result

    @overload
    async def local(
        self, name: str, function: Callable[..., Coroutine[Any, Any, R]], *args: Any
    ) -> R: ...
    @overload
    async def local(self, name: str, function: Callable[..., R], *args: Any) -> R: ...

    async def local(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Record the result of a small function, so that replay does not call it again.

        Unlike a task it has no retries, no timeout and no attempt of its own.
        """
        return await self._port.local(check_name("local", name), function, args)

    def now(self) -> datetime:
        """Return the time (UTC): that of the last result this run was given.

        It stands still between durable calls, and is the same on every replay.
        """
        return self._port.now()

    def uuid4(self, name: str | None = None) -> UUID:
        """Return a random UUID that is the same on every replay."""
        return self._port.uuid4(name)

    def random(self, name: str | None = None) -> float:
        """Return a random number in [0, 1) that is the same on every replay."""
        return self._port.random(name)


def _timeout(timeout: Duration | None) -> int | None:
    if timeout is None:
        return None
    return bounded_micros("the timeout", duration_micros("the timeout", timeout))
