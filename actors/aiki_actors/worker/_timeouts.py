"""Durable timeouts: cancel scopes whose time is kept by the server.

A scope is entered without a word to anybody. Its time begins with the next durable operation of the
run, which carries `StartTimeout` along; before that nothing can last. When the time is over the
server writes `TimeoutReached`, and the worker delivers it as a signal: in its place among the
results, by seq, as it does with a cancellation. So replay cancels the scope at the same point. A
timeout that did not fire is given up with the next word to the server.

Invariant: a scope is in at most one of `_armed` (its time has not begun) and `_open` (it runs).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import trio
from attrs import Factory, define, field

from aiki_actors import engine as e
from aiki_sdk import WaitTimeout
from aiki_sdk._addresses import timeout_address

from ._branches import Branch

if TYPE_CHECKING:
    from ._execution import Execution


@define(eq=False)
class DurableTimeout:
    """One `with run.move_on_after(…)` or `run.fail_after(…)`; entered once.

    Attributes:
        fails: whether leaving it after its time raises `WaitTimeout`.
        call: which timeout this is; named at the entry.
        dead: the scope was left; a signal for it means nothing any more.

    """

    name: str
    duration: e.Micros
    fails: bool
    execution: Execution
    branch: Callable[[], Branch]
    dead: bool = False
    call: e.Call = field(init=False)
    scope: trio.CancelScope = Factory(trio.CancelScope)

    @property
    def cancel_called(self) -> bool:
        """Whether the time was over, or `cancel` was called, before the scope was left."""
        return self.scope.cancel_called

    @property
    def cancelled_caught(self) -> bool:
        """Whether the scope ended what was inside it."""
        return self.scope.cancelled_caught

    def cancel(self) -> None:
        """End what is inside now."""
        self.scope.cancel()

    def __enter__(self) -> Self:
        """Name the call and open the scope."""
        self.call = self.branch().next_call(timeout_address(self.name))
        self.scope.__enter__()
        self.execution.timeouts.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Close the scope; an open timeout is given up."""
        self.execution.timeouts.leave(self)
        swallowed = bool(self.scope.__exit__(kind, error, traceback))
        if self.fails and self.scope.cancelled_caught:
            seconds = self.duration / e.SECOND
            message = f"timeout {self.name!r}: what was inside did not end within {seconds:g} s"
            raise WaitTimeout(message) from None
        return swallowed


@define(eq=False)
class Timeouts:
    """The durable timeouts that the code of one run is inside of."""

    execution: Execution
    _armed: dict[DurableTimeout, bool] = Factory(lambda: dict[DurableTimeout, bool]())
    """With each, whether it has taken up the record of one that was given up before."""
    _open: dict[e.Call, DurableTimeout] = Factory(lambda: dict[e.Call, DurableTimeout]())

    @property
    def armed(self) -> bool:
        """Whether the time of some scope is to begin with the next durable operation."""
        return bool(self._armed)

    @property
    def open_calls(self) -> tuple[e.Call, ...]:
        """The timeouts whose time runs: the run may park only while all of them do."""
        return tuple(self._open)

    def enter(self, timeout: DurableTimeout) -> None:
        """Find what is recorded of a timeout: nothing, that it runs, was reached, was given up."""
        replica = self.execution.replica
        record = replica.take(timeout.call)
        if record is None and timeout.call in replica.records:
            timeout.call = replica.free_name(timeout.call)
            record = replica.take(timeout.call)
        if record is None:
            self._armed[timeout] = False
        elif record.resolution is not None:
            self.execution.sequencer.push(record.resolved_at, timeout)
        elif record.start is not None:
            self._open[timeout.call] = timeout
        # Otherwise it was given up: the code has left the scope before its time was over.

    def leave(self, timeout: DurableTimeout) -> None:
        """Forget a timeout; if its time runs, give it up."""
        timeout.dead = True
        self._armed.pop(timeout, None)
        if self._open.pop(timeout.call, None) is not None:
            self.execution.give_up(timeout.call)

    def begin(self) -> list[Callable[[e.ClaimRef], e.WorkerCommand]]:
        """Return the commands with which the time of every entered scope begins."""
        self.settle()
        for timeout, known in self._armed.items():
            if not known:
                self.execution.replica.open(timeout.call)
        begun, self._armed = list(self._armed), {}
        self._open.update((timeout.call, timeout) for timeout in begun)
        return [_start(timeout) for timeout in begun]

    def settle(self) -> bool:
        """Take up what is recorded of the entered scopes; True: the time of one of them is over.

        Then the code is cancelled here, and must not begin to wait for anything.
        """
        over: list[tuple[int, DurableTimeout]] = []
        for timeout, known in list(self._armed.items()):
            record = None
            if not known:
                record = self.execution.replica.take_leftover(timeout.call.address)
            if record is None:
                continue
            timeout.call = record.call
            if record.resolution is not None:
                del self._armed[timeout]
                over.append((record.resolved_at, timeout))
            elif record.start is not None:
                del self._armed[timeout]
                self._open[timeout.call] = timeout
            else:
                self._armed[timeout] = True
        for seq, timeout in sorted(over, key=lambda each: each[0]):
            self.execution.signal(seq, timeout)
        return bool(over)

    def reached(self, call: e.Call, seq: int) -> None:
        """Hear that a timeout's time is over."""
        timeout = self._open.pop(call, None)
        if timeout is not None:
            self.execution.signal(seq, timeout)


def _start(timeout: DurableTimeout) -> Callable[[e.ClaimRef], e.WorkerCommand]:
    return lambda claim: e.StartTimeout(timeout.call, timeout.duration, claim=claim)
