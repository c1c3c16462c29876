"""How a task call runs: the task actor, its attempts, and what becomes of each.

A task actor belongs to one call. It runs attempts one after another in the caller's own Trio task
(one branch) or beside it (several), each in a cancel scope of its own, and reports every outcome to
the run before it goes on. What the retry policy says is asked here, because only here the exception
itself is at hand; that an attempt failed and when the next is due is journaled by the engine.

A short delay (`local_retry_max`) passes here; a longer one is a wait of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import trio
from attrs import define, field, frozen

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_sdk import (
    AnyTask,
    Clock,
    ErrorInfo,
    HeartbeatTimeout,
    JsonValue,
    OutcomeUnknown,
    RecordedTypeMismatch,
    Rng,
    TaskFailed,
    TaskProcessDied,
    TaskTimeout,
    task_address,
)

from ._asyncio_loop import AsyncioLoop
from ._attempt import Attempt, Places
from ._branches import Branch
from ._execution import Execution
from ._hooks import WorkerHooks
from ._host import StartHost, no_host
from ._processes import PROCESSES_MAX, Processes, RaisedElsewhere
from ._pulse import RECORD_EVERY_S
from ._replica import Record
from ._slots import RunEvicted, Slot
from ._threads import Threads

LOGGER: Final = logging.getLogger("aiki.worker")

THREADS_MAX: Final = 40
"""Threads for plain `def` tasks of one worker: as many as Trio's own default limiter allows."""


@define(eq=False)
class Attempts:
    """Runs the task calls of all runs of one worker.

    Attributes:
        clock: for the rest of a short retry delay after a restart.
        rng: for jittered delays.
        threads: bounds the threads that plain `def` tasks use.
        hooks: what is put around the attempts.
        start_host: keeps the asyncio loop and the processes open.
        processes_max: how many processes there may be.
        record_every_s: seconds between two recorded heartbeats of one attempt.
        running: attempts that run now, or wait for their place.

    """

    clock: Clock
    rng: Rng
    threads: trio.CapacityLimiter
    hooks: WorkerHooks = WorkerHooks()
    start_host: StartHost = no_host
    processes_max: int = PROCESSES_MAX
    record_every_s: float = RECORD_EVERY_S
    running: int = field(default=0, init=False)
    places: Places = field(init=False)
    _pools_noted: set[str] = field(factory=lambda: set[str](), init=False)

    def __attrs_post_init__(self) -> None:
        """Make the places; what they keep open is opened when a task needs it."""
        self.places = Places(
            Threads(self.threads),
            AsyncioLoop(self.start_host),
            Processes(trio.CapacityLimiter(self.processes_max), self.start_host),
            self.hooks.invoke,
            self.record_every_s,
        )

    @property
    def abandoned_threads(self) -> int:
        """Threads whose attempt was given up and that still run."""
        return self.places.threads.abandoned

    def note_pool(self, task: str, pool: str) -> None:
        """Say once per task, when it is first executed, that its pool has no effect."""
        if task in self._pools_noted:
            return
        self._pools_noted.add(task)
        LOGGER.warning(
            "task %r asks for pool %r and runs in the worker of its workflow all the same: single "
            "tasks cannot be routed to another pool in this version",
            task,
            pool,
        )

    def call(
        self,
        execution: Execution,
        branch: Branch,
        task: AnyTask,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Coroutine[Any, Any, Any]:
        """Name the call now, in call order; make it when the result is awaited."""
        data, digest = task.encode_input(args, kwargs)
        call = branch.next_call(task_address(task.name, digest))
        return self._perform(execution, call, task, data)

    async def _perform(
        self, execution: Execution, call: e.Call, task: AnyTask, data: dict[str, JsonValue]
    ) -> Any:
        actor = TaskActor(self, execution, task, data)
        record = await execution.perform(call, actor.run)
        body = record.resolution
        if isinstance(body, e.TaskSucceeded):
            try:
                return task.decode_output(body.output)
            except RecordedTypeMismatch as mismatch:
                raise mismatch.at_entry(record.resolved_at) from mismatch.__cause__
        assert isinstance(body, e.TaskFailed), f"task call {call} ended with {body!r}"
        if body.error.code == OutcomeUnknown.code:
            raise OutcomeUnknown(body.error.message)
        raise TaskFailed(body.error, task=task.name, attempts=body.attempt)


@frozen
class Failure:
    """An attempt that failed, and the seconds until the next one (None: there is none)."""

    error: ErrorInfo
    delay_s: float | None


@define(eq=False)
class TaskActor:
    """One task call: its attempts under its retry and timeout policy."""

    shared: Attempts
    execution: Execution
    task: AnyTask
    data: dict[str, JsonValue]

    async def run(self, slot: Slot) -> None:
        """Run attempts until the call has an outcome, and report each; see `Slot.start`."""
        if self.task.settings.pool is not None:
            self.shared.note_pool(self.task.name, self.task.settings.pool)
        if slot.scope is not None:
            await self._run(slot)
            return
        # In the code's own branch the code may have shielded itself; an eviction ends this scope.
        with trio.CancelScope() as slot.scope:
            await self._run(slot)
        if self.execution.evicted:
            raise RunEvicted

    async def _run(self, slot: Slot) -> None:
        record = slot.record
        assert record is not None, "a call that begins has a record"
        while not slot.resolved:
            if record.retry is not None:
                await self._wait_delay(record.retry, slot)
                continue
            number = record.attempts + 1
            attempt = Attempt(
                self.shared.places,
                self.execution,
                self.task,
                self.data,
                slot.call,
                number,
                record.details,
            )
            if self.task.settings.at_most_once:
                result = await self._attempt_once(attempt, record)
            else:
                result = await self._attempt(attempt)
            fault_point("task.done")
            if isinstance(result, Failure):
                await self._report_failure(attempt, result)
            else:
                await self._report_success(slot.call, number, result[0])
            if record.resolution is None and record.attempts < number:
                # Said again after an error that was none: the journal is ahead of this worker.
                self.execution.fall_back("the journal has another outcome of a task call")
                raise RunEvicted

    async def _wait_delay(self, retry: e.AttemptFailed, slot: Slot) -> None:
        if retry.waits:
            await self.execution.wait_retry(slot)
            return
        record = slot.record
        assert record is not None, "a call that begins has a record"
        # `retry_at` is a time of the server's clock; however far this one is from it, the delay
        # lasts no longer than it is long.
        rest_s = retry.retry_at / e.SECOND - self.shared.clock.now().timestamp()
        await trio.sleep(max(0.0, min(rest_s, record.retry_delay / e.SECOND)))
        record.retry = None

    def _report_success(
        self, call: e.Call, attempt: int, output: JsonValue
    ) -> Coroutine[Any, Any, None]:
        return self.execution.submit(
            lambda claim: e.RecordSuccess(call, attempt, output, claim=claim)
        )

    async def _report_failure(self, attempt: Attempt, failure: Failure) -> None:
        delay = failure.delay_s
        retry_after = None if delay is None else e.Micros(round(delay * e.SECOND))
        await self.execution.submit(
            lambda claim: e.RecordFailure(
                attempt.call,
                attempt.number,
                failure.error,
                retry_after,
                attempt.details,
                claim=claim,
            )
        )

    async def _attempt(self, attempt: Attempt) -> tuple[JsonValue] | Failure:
        """Run one attempt; a failure is data here, only eviction and cancellation propagate."""
        self.shared.running += 1
        try:
            return (await attempt.run(),)
        except (trio.Cancelled, KeyboardInterrupt, RunEvicted):
            raise
        except BaseException as error:  # noqa: BLE001  (whatever a task raises is its outcome)
            return self._failed(attempt.number, error)
        finally:
            self.shared.running -= 1

    async def _attempt_once(self, attempt: Attempt, record: Record) -> tuple[JsonValue] | Failure:
        """Run an attempt whose beginning is journaled; if one had begun before, refuse."""
        if record.started:
            lost = _unknown(self.task.name, "its worker was lost, or it was cancelled")
            return self._failed(attempt.number, lost)

        async def announce() -> None:
            call, number = attempt.call, attempt.number
            await self.execution.submit(lambda claim: e.RecordStart(call, number, claim=claim))
            if record.started < number:
                self.execution.fall_back("the journal has another beginning of a task call")
                raise RunEvicted

        attempt.announce = announce
        return await self._attempt(attempt)

    def _failed(self, attempt: int, error: BaseException) -> Failure:
        """Ask the retry policy, unless the task itself said when to come again."""
        settings, chance = self.task.settings, self.shared.rng.random()
        if settings.at_most_once and isinstance(error, _GIVEN_UP):
            unknown = _unknown(self.task.name, str(error))
            unknown.__cause__, error = error, unknown
        if not isinstance(error, RaisedElsewhere):
            return Failure(
                ErrorInfo.from_exception(error), settings.retry.delay_on(attempt, error, chance)
            )
        delay_s = None
        if error.delay_s is not None or settings.retry.retries_named(
            error.names, retryable=error.info.retryable
        ):
            delay_s = settings.retry.delay_after(attempt, chance)
        if delay_s is not None and error.delay_s is not None:
            delay_s = error.delay_s
        return Failure(error.info, delay_s)


_GIVEN_UP: Final = (TaskTimeout, HeartbeatTimeout, TaskProcessDied)
"""What ends an attempt without anybody knowing how far it came."""


def _unknown(task: str, why: str) -> OutcomeUnknown:
    message = (
        f"task {task!r} runs at most once, had begun, and {why}; it may have had its effect: find "
        "that out before it is done again"
    )
    return OutcomeUnknown(message)
