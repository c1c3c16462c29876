"""One attempt of a task call: the function in its place, within its time, with its context.

A task's function runs where its `runtime` says: in the attempt's own Trio task, in a thread, in the
worker's asyncio loop, or in a process. Its time begins when it has its place, and is over at its
`timeout`, or when no heartbeat comes for its `heartbeat_timeout`.

Invariant: once `run` has returned or raised, nothing that the function still does counts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from functools import partial
from hashlib import sha256
from typing import Any, Final, cast

import trio
from attrs import define, frozen

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_sdk import (
    AnyTask,
    HeartbeatTimeout,
    JsonValue,
    TaskContext,
    TaskTimeout,
    current_task_context,
    current_workflow,
)

from ._asyncio_loop import AsyncioLoop
from ._execution import Execution
from ._hooks import Invoke
from ._processes import Processes
from ._pulse import STARTED, Pulse
from ._threads import ThreadCall, Threads

LOGGER: Final = logging.getLogger("aiki.task")


@frozen
class Places:
    """Where the functions of one worker's tasks run, and what is put around them."""

    threads: Threads
    asyncio: AsyncioLoop
    processes: Processes
    invoke: Invoke | None
    record_every_s: float


@define(eq=False)
class Attempt:
    """One attempt.

    Attributes:
        details: what the last heartbeat carried, of this attempt or an earlier one.
        announce: journals that the attempt begins, when it has its place.

    """

    places: Places
    execution: Execution
    task: AnyTask
    data: dict[str, JsonValue]
    call: e.Call
    number: int
    details: JsonValue
    announce: Callable[[], Awaitable[None]] | None = None
    _thread: ThreadCall | None = None

    def run(self) -> Coroutine[Any, Any, JsonValue]:
        """Run the function and return its output as JSON; raises whatever it raises.

        Raises:
            TaskTimeout: it took longer than its timeout.
            HeartbeatTimeout: it gave no sign of life for that long.
            RaisedElsewhere: it raised in its process.

        """
        # Plain functions that return coroutines, here and below: each `async def` between the
        # task's function and the loop is paid again at each of its waits.
        runtime = self.task.settings.runtime
        return self._begin() if runtime in _AT_ONCE else self._begin_in_place()

    async def _begin_in_place(self) -> JsonValue:
        if self.task.settings.runtime == "process":
            async with self.places.processes.limiter:
                return await self._begin()
        what = f"attempt {self.number} of task {self.task.name!r} of run "
        async with self.places.threads.call(what + self.execution.run_id) as self._thread:
            return await self._begin()

    async def _begin(self) -> JsonValue:
        if self.announce is not None:
            await self.announce()
        task, settings = self.task, self.task.settings
        pulse = Pulse(
            self.execution,
            task.name,
            self.call,
            self.number,
            self.details,
            self.places.record_every_s,
            trio.lowlevel.current_trio_token(),
        )
        context = AttemptContext(self, pulse)
        # As `task_context` does, without a generator: this is the hottest path of a worker.
        task_token = current_task_context.set(context)
        workflow_token = current_workflow.set(None)
        try:
            pulse.tell(STARTED)
            fault_point("task.begun")
            if settings.timeout_s is None and settings.heartbeat_timeout_s is None:
                pulse.begin()
                value = await self._invoke(context, pulse)
            else:
                value = await self._in_time(context, pulse)
            return task.encode_output(value)
        finally:
            pulse.over = True
            self.details = pulse.details
            current_workflow.reset(workflow_token)
            current_task_context.reset(task_token)

    async def _in_time(self, context: TaskContext, pulse: Pulse) -> Any:
        settings = self.task.settings
        timeout_s, heartbeat_s = settings.timeout_s, settings.heartbeat_timeout_s
        if timeout_s is None:
            with pulse.watch(heartbeat_s):
                return await self._invoke(context, pulse)
        else:
            with trio.move_on_after(timeout_s), pulse.watch(heartbeat_s):
                return await self._invoke(context, pulse)
        if pulse.timed_out:
            message = f"task {self.task.name!r} sent no heartbeat for {heartbeat_s or 0:g} s"
            raise HeartbeatTimeout(message)
        message = f"task {self.task.name!r} did not end within its timeout of {timeout_s or 0:g} s"
        raise TaskTimeout(message)

    def _invoke(self, context: TaskContext, pulse: Pulse) -> Awaitable[Any]:
        args, kwargs = self.task.decode_input(self.data)
        invoke = self.places.invoke
        if invoke is None:
            return self._call_function(context, pulse, args, kwargs)
        proceed = partial(self._call_function, context, pulse, args, kwargs)
        return invoke(self.task, args, kwargs, proceed)

    def _call_function(
        self,
        context: TaskContext,
        pulse: Pulse,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Coroutine[Any, Any, Any]:
        function = cast("Callable[..., Any]", getattr(self.task, "function"))  # noqa: B009
        match self.task.settings.runtime:
            case "trio":
                coroutine: Coroutine[Any, Any, Any] = function(*args, **kwargs)
                return coroutine
            case "thread":
                assert self._thread is not None, "the attempt has its place among the threads"
                return self._thread.run(partial(function, *args, **kwargs))
            case "asyncio":
                call = partial(function, *args, **kwargs)
                return self.places.asyncio.run(call, self.task.name)
            case "process":
                return self._call_in_process(context, pulse)

    async def _call_in_process(self, context: TaskContext, pulse: Pulse) -> Any:
        facts: dict[str, JsonValue] = {
            "run_id": context.run_id,
            "attempt": context.attempt,
            "idempotency_key": context.idempotency_key,
            "last_heartbeat": context.last_heartbeat,
        }
        hear = {"heartbeat": pulse.beat, "progress": pulse.progress}
        output = await self.places.processes.run(self.task, self.data, facts, hear)
        return self.task.decode_output(output)


_AT_ONCE: Final = frozenset({"trio", "asyncio"})
"""Runtimes in which an attempt needs no place of its own."""


class AttemptContext(TaskContext):
    """The context of an attempt; what few tasks ask for is made when it is asked for."""

    __slots__ = ("_call",)

    def __init__(self, attempt: Attempt, pulse: Pulse) -> None:
        """Describe `attempt`, whose signs of life go to `pulse`."""
        # Not the inherited way: that needs every attribute, `__getattr__` makes two of them later.
        self.name = attempt.task.name
        self.run_id = attempt.execution.run_id
        self.attempt = attempt.number
        self.last_heartbeat = attempt.details
        self._on_heartbeat = pulse.beat
        self._on_progress = pulse.progress
        self._call = attempt.call

    def __getattr__(self, name: str) -> object:
        """Make an attribute that is not set yet; asked only then."""
        if name == "idempotency_key":
            self.idempotency_key = idempotency_key(self.run_id, self._call)
            return self.idempotency_key
        if name == "logger":
            names = {"run_id": self.run_id, "task": self.name, "attempt": self.attempt}
            self.logger = TaskLogger(LOGGER, names)
            return self.logger
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=self)


def idempotency_key(run_id: str, call: e.Call) -> str:
    """Return a key that is the same for every attempt and replay of this very call."""
    return sha256(f"{run_id}/{call}".encode()).hexdigest()[:32]


class TaskLogger(logging.LoggerAdapter[logging.Logger]):
    """Names run, task and attempt in front of each message, and as fields of the record."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, Any]:
        """Add the names."""
        extra = self.extra or {}
        text = f"[{extra.get('run_id')} {extra.get('task')} #{extra.get('attempt')}] {msg}"
        return super().process(text, kwargs)
