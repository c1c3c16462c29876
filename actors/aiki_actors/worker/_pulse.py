"""What a running attempt says of itself: that it lives, how far it is, what to show.

Heartbeats come from any thread; they are taken in on Trio's. The heartbeat timeout is a cancel
scope whose deadline every heartbeat moves, so it costs no task and no timer of its own.

Details are journaled with a failed attempt. Should the worker be lost instead, the next attempt is
told what was recorded last: at most one entry per `record_every_s`, and none in the attempt's first
`record_every_s`, so that short tasks write nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio
from attrs import define

from aiki_actors import engine as e
from aiki_sdk import AikiError, JsonValue, NotInTask

from ._execution import Execution
from ._slots import RunEvicted

LOGGER: Final = logging.getLogger("aiki.task")

RECORD_EVERY_S: Final = 30.0
"""Seconds between two recorded heartbeats of one attempt: what a crash may cost in progress."""

PROGRESS: Final = "task-progress"
STARTED: Final = "task-started"
"""Kinds of live updates: streamed to who watches the run, journaled nowhere."""


@define(eq=False)
class Pulse:
    """The signs of life of one attempt.

    Attributes:
        details: what the last heartbeat that carried anything carried, of this attempt or before.
        over: the attempt has an outcome, or was given up; what its code still says is refused.

    """

    execution: Execution
    task: str
    call: e.Call
    attempt: int
    details: JsonValue
    record_every_s: float
    token: trio.lowlevel.TrioToken
    over: bool = False
    _recorded_at: float = -math.inf
    _timeout_s: float = math.inf
    _scope: trio.CancelScope | None = None

    def begin(self) -> None:
        """Begin, where no heartbeat is waited for."""
        self._recorded_at = trio.current_time()

    def watch(self, timeout_s: float | None) -> trio.CancelScope:
        """Begin; return the scope that ends when no heartbeat comes for so many seconds."""
        now = trio.current_time()
        self._recorded_at = now
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._scope = trio.CancelScope(deadline=now + self._timeout_s)
        return self._scope

    @property
    def timed_out(self) -> bool:
        """Whether no heartbeat came in time, and that ended the attempt."""
        return self._scope is not None and self._scope.cancelled_caught

    def beat(self, details: JsonValue) -> None:
        """Take a heartbeat, from any thread."""
        self._enter("heartbeat", lambda: self._beat(details))

    def progress(self, value: JsonValue) -> None:
        """Show something to whoever watches the run, from any thread."""
        self._enter("progress", lambda: self._show(value))

    def _enter(self, what: str, act: Callable[[], None]) -> None:
        if not self.over:
            if trio.lowlevel.in_trio_run():
                act()
                return
            try:
                self.token.run_sync_soon(act)
            except trio.RunFinishedError:
                self.over = True
            else:
                return
        message = (
            f"current_task().{what}() of task {self.task!r}: attempt {self.attempt} is over (it "
            "ended, timed out or was cancelled) and nothing that it does counts any more; return"
        )
        raise NotInTask(message)

    def _beat(self, details: JsonValue) -> None:
        if self.over:
            return
        now = trio.current_time()
        if self._scope is not None:
            self._scope.deadline = now + self._timeout_s
        if details is None:
            return
        self.details = details
        background = self.execution.background
        if background is not None and now - self._recorded_at >= self.record_every_s:
            self._recorded_at = now
            background(self._record)

    async def _record(self) -> None:
        """Journal the last details; that this fails costs progress at most, never the attempt."""
        execution = self.execution
        if self.over or execution.evicted or execution.replica.claim is None:
            return
        call, attempt, details = self.call, self.attempt, self.details
        try:
            await execution.submit(
                lambda claim: e.RecordHeartbeat(call, attempt, details, claim=claim)
            )
        except RunEvicted:
            LOGGER.debug("run %s left while a heartbeat was recorded", execution.run_id)
        except AikiError as error:
            LOGGER.warning(
                "a heartbeat of task %r of run %s was not recorded: %s",
                self.task,
                execution.run_id,
                error,
            )

    def _show(self, value: JsonValue) -> None:
        if not self.over:
            self.tell(PROGRESS, value)

    def tell(self, kind: str, value: JsonValue = None) -> None:
        """Send a live update, as far as anybody watches."""
        body: dict[str, JsonValue] = {"task": self.task, "attempt": self.attempt}
        if kind == PROGRESS:
            body["value"] = value
        self.execution.port.progress(self.execution.run_id, kind, body)
