"""A call of the running code that has no result yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from attrs import define

from aiki_actors.engine import Call

from ._replica import Record


class RunEvicted(BaseException):
    """The run leaves this worker's memory; workflow code must not catch this."""


Start = Callable[["Slot"], Awaitable[None]]
"""Makes a call happen; returns when it has ended or when the server holds its open wait."""


@define(eq=False)
class Slot:
    """One durable call between its beginning and its result.

    Attributes:
        free: may begin although recorded tasks are left over (sleeps and waits).
        start: makes it happen.
        began: `start` was called.
        task: the Trio task that waits for the result, while it waits.
        scope: cancels `start` when that runs beside the branch.
        error: what `start` raised, if it did.
        dead: the call was given up; a late result is ignored.
        delivered: the code was given the result.
        signalled: a signal came before the result; the result may come too late.
        retry_due: set when the delay before a task's next attempt is over.
        child: the child whose end is the result, if it is one's.

    """

    call: Call
    record: Record | None
    start: Start
    free: bool
    began: bool = False
    dead: bool = False
    delivered: bool = False
    signalled: bool = False
    task: trio.lowlevel.Task | None = None
    scope: trio.CancelScope | None = None
    error: BaseException | None = None
    retry_due: trio.Event | None = None
    child: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether the call's result is recorded."""
        return self.record is not None and self.record.resolution is not None

    def resolved_before(self, seq: int) -> bool:
        """Whether the call's result is recorded, and before `seq`."""
        record = self.record
        return record is not None and record.resolution is not None and record.resolved_at < seq

    @property
    def open_wait(self) -> bool:
        """Whether the server holds an open wait for this call, so that the run may park."""
        return self.record is not None and self.record.waiting and not self.dead

    def attach(self, record: Record) -> Record:
        """Make `record` the one whose resolution this call waits for, and take its name."""
        self.record = record
        self.call = record.call
        record.slot = self
        return record
