"""How a task call runs: the task actor, its attempts, and what becomes of each.

A task actor belongs to one call. It runs attempts one after another in the caller's own Trio task
(one branch) or beside it (several), each in a cancel scope of its own, and reports every outcome to
the run before it goes on. What the retry policy says is asked here, because only here the exception
itself is at hand; that an attempt failed and when the next is due is journaled by the engine.

A short delay (`local_retry_max`) passes here; a longer one is a wait of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from functools import partial
from hashlib import sha256
from typing import Any, Final, cast

import trio
from attrs import define, frozen

from aiki_actors import engine as e
from aiki_sdk import (
    AikiError,
    AnyTask,
    Clock,
    ErrorInfo,
    JsonValue,
    Rng,
    TaskContext,
    TaskFailed,
    TaskTimeout,
    current_task_context,
    current_workflow,
    task_address,
)

from ._branches import Branch
from ._execution import Execution
from ._hooks import WorkerHooks
from ._slots import RunEvicted, Slot

LOGGER: Final = logging.getLogger("aiki.task")

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
        abandoned_threads: threads whose attempt was given up and that may still run.

    """

    clock: Clock
    rng: Rng
    threads: trio.CapacityLimiter
    hooks: WorkerHooks = WorkerHooks()
    running: int = 0
    abandoned_threads: int = 0

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
            return task.decode_output(body.output)
        assert isinstance(body, e.TaskFailed), f"task call {call} ended with {body!r}"
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
            attempt = record.attempts + 1
            result = await self._attempt(slot.call, attempt)
            if isinstance(result, Failure):
                await self._report_failure(slot.call, attempt, result)
            else:
                await self._report_success(slot.call, attempt, result[0])
            if not slot.resolved and record.attempts < attempt:
                # Said again after an error that was none: the journal is ahead of this worker.
                self.execution.fall_back("the journal has another outcome of a task call")
                raise RunEvicted

    async def _wait_delay(self, retry: e.AttemptFailed, slot: Slot) -> None:
        if retry.waits:
            await self.execution.wait_retry(slot)
            return
        now = self.shared.clock.now().timestamp()
        await trio.sleep(max(0.0, retry.retry_at / e.SECOND - now))
        assert slot.record is not None, "a call that begins has a record"
        slot.record.retry = None

    async def _report_success(self, call: e.Call, attempt: int, output: JsonValue) -> None:
        await self.execution.submit(
            lambda claim: e.RecordSuccess(call, attempt, output, claim=claim)
        )

    async def _report_failure(self, call: e.Call, attempt: int, failure: Failure) -> None:
        delay = failure.delay_s
        retry_after = None if delay is None else e.Micros(round(delay * e.SECOND))
        await self.execution.submit(
            lambda claim: e.RecordFailure(call, attempt, failure.error, retry_after, claim=claim)
        )

    async def _attempt(self, call: e.Call, attempt: int) -> tuple[JsonValue] | Failure:
        """Run one attempt; a failure is data here, only eviction and cancellation propagate."""
        name, run_id = self.task.name, self.execution.run_id
        names = {"run_id": run_id, "task": name, "attempt": attempt}
        logger = TaskLogger(LOGGER, names)
        context = TaskContext(name, run_id, attempt, idempotency_key(run_id, call), logger)
        self.shared.running += 1
        # As `task_context` does, without a generator: this is the hottest path of a worker.
        task_token = current_task_context.set(context)
        workflow_token = current_workflow.set(None)
        try:
            value = await self._in_time()
            return (self.task.encode_output(value),)
        except (trio.Cancelled, KeyboardInterrupt, RunEvicted):
            raise
        except BaseException as error:  # noqa: BLE001  (whatever a task raises is its outcome)
            return self._failed(attempt, error)
        finally:
            current_workflow.reset(workflow_token)
            current_task_context.reset(task_token)
            self.shared.running -= 1

    async def _in_time(self) -> Any:
        timeout_s = self.task.settings.timeout_s
        if timeout_s is None:
            return await self._invoke()
        with trio.move_on_after(timeout_s):
            return await self._invoke()
        message = f"task {self.task.name!r} did not end within its timeout of {timeout_s:g} s"
        raise TaskTimeout(message)

    async def _invoke(self) -> Any:
        args, kwargs = self.task.decode_input(self.data)
        invoke = self.shared.hooks.invoke
        if invoke is None:
            return await self._call_function(args, kwargs)
        return await invoke(self.task, args, kwargs, partial(self._call_function, args, kwargs))

    async def _call_function(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        function = cast("Callable[..., Any]", getattr(self.task, "function"))  # noqa: B009
        runtime = self.task.settings.runtime
        if runtime == "trio":
            return await function(*args, **kwargs)
        if runtime == "thread":
            call = partial(function, *args, **kwargs)
            return await trio.to_thread.run_sync(
                call, abandon_on_cancel=True, limiter=self.shared.threads
            )
        message = (
            f"task {self.task.name!r} asks for runtime={runtime!r}, which this version does not "
            "have; use runtime='trio' for async def and runtime='thread' for def"
        )
        raise AikiError(message)

    def _failed(self, attempt: int, error: BaseException) -> Failure:
        """Ask the retry policy, unless the task itself said when to come again."""
        delay = self.task.settings.retry.delay_on(attempt, error, self.shared.rng.random())
        return Failure(ErrorInfo.from_exception(error), delay)


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
