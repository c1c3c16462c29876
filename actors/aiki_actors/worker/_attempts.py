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
from hashlib import sha256
from typing import Any, Final

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
    task_address,
    task_context,
)

from ._branches import Branch
from ._execution import Execution
from ._slots import RunEvicted, Slot

LOGGER: Final = logging.getLogger("aiki.task")

THREADS_MAX: Final = 40
"""Threads for plain `def` tasks of one worker, unless its settings say otherwise (Trio's default)."""


@define(eq=False)
class Attempts:
    """Runs the task calls of all runs of one worker.

    Attributes:
        clock: for the rest of a short retry delay after a restart.
        rng: for jittered delays.
        threads: bounds the threads that plain `def` tasks use.
        abandoned_threads: threads whose attempt was given up and that may still run.

    """

    clock: Clock
    rng: Rng
    threads: trio.CapacityLimiter
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
        settings = self.task.settings
        run_id = self.execution.run_id
        context = TaskContext(
            self.task.name,
            run_id,
            attempt,
            idempotency_key(run_id, call),
            TaskLogger(LOGGER, {"run_id": run_id, "task": self.task.name, "attempt": attempt}),
        )
        shared = self.shared
        shared.running += 1
        try:
            with task_context(context):
                if settings.timeout_s is None:
                    value = await self._invoke()
                else:
                    with trio.move_on_after(settings.timeout_s) as scope:
                        value = await self._invoke()
                    if scope.cancelled_caught:
                        return self._failed(attempt, self._timed_out(settings.timeout_s))
            return (self.task.encode_output(value),)
        except RunEvicted:
            raise
        except Exception as error:  # noqa: BLE001  (any failure of a user's function is an outcome)
            return self._failed(attempt, error)
        except (SystemExit, GeneratorExit) as error:
            return self._failed(attempt, error)
        finally:
            shared.running -= 1

    async def _invoke(self) -> Any:
        args, kwargs = self.task.decode_input(self.data)
        function: Callable[..., Any] = self.task.function  # type: ignore[attr-defined]
        runtime = self.task.settings.runtime
        if runtime == "trio":
            return await function(*args, **kwargs)
        if runtime == "thread":
            return await trio.to_thread.run_sync(
                lambda: function(*args, **kwargs),
                abandon_on_cancel=True,
                limiter=self.shared.threads,
            )
        message = (
            f"task {self.task.name!r} asks for runtime={runtime!r}, which this version does not "
            "have; use runtime='trio' for async def and runtime='thread' for def"
        )
        raise AikiError(message)

    def _timed_out(self, timeout_s: float) -> TaskTimeout:
        return TaskTimeout(
            f"task {self.task.name!r} did not end within its timeout of {timeout_s:g} s"
        )

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
