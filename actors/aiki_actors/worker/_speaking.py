"""What an execution says to the server, and how it survives not being understood at once.

One half of `Execution`, apart from it only to be read by itself: commands are submitted under the
claim of the moment, what was given up is said first, a park is not overtaken by what comes after
it, and a reply is taken in strictly in order of seq.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Final

import trio

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_sdk import AikiError, StaleClaim, UnknownOutcome

from ._port import ServerPort
from ._replica import Record, Replica
from ._sequencer import Sequencer
from ._slots import RunEvicted, Slot
from ._timeouts import Timeouts

RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 5.0
"""Backoff while the server cannot make a result durable (database locked, disk full)."""


class Speaking:
    """The words of one execution to its server; the fields are those of `Execution`."""

    run_id: str
    port: ServerPort
    replica: Replica
    sequencer: Sequencer
    timeouts: Timeouts
    begun: int
    multi: bool
    evicted: bool
    cancelled_at: int | None
    _abandoned: list[e.Call]
    _claimed: trio.Event | None
    _gap: trio.Event | None
    _parked: trio.Event | None

    @abstractmethod
    def feed(self, entries: tuple[e.Entry, ...]) -> None:
        """Take journal entries in."""

    @abstractmethod
    def pass_on(self) -> None:
        """Hand resolved records to the calls that wait for them."""

    @abstractmethod
    def evict(self) -> None:
        """Leave memory."""

    @abstractmethod
    def fall_back(self, reason: str) -> None:
        """Leave memory and have the run claimed again."""

    def submit(self, *build: Callable[[e.ClaimRef], e.WorkerCommand]) -> Coroutine[Any, Any, None]:
        """Have commands carried out and take in the entries they made; never half-way cancelled.

        What was given up since the last time is said first. While the server cannot write (locked,
        disk full) this tries again: a finished result is not thrown away.

        Raises:
            RunEvicted: the run left this worker meanwhile.
            AikiError: a command was refused.

        """
        claim = self.replica.claim
        if claim is None or self._parked is not None or self.evicted:
            return self._submit_when_possible(build)
        return self._submit(claim, build)

    async def _submit_when_possible(
        self, build: tuple[Callable[[e.ClaimRef], e.WorkerCommand], ...]
    ) -> None:
        """Submit under a claim that is on its way, or has to be asked for."""
        if self.evicted:
            raise RunEvicted
        if self._parked is not None:
            await self._after_parking(self._parked)
        claim = self.replica.claim or await self._regain()
        await self._submit(claim, build)

    async def _after_parking(self, parked: trio.Event) -> None:
        """Let a parking end that is on its way: what is said under its claim would be too late.

        That happens when code goes on by itself, without any wait resolved.
        """
        with trio.CancelScope(shield=True):
            await parked.wait()
        if self.evicted:
            raise RunEvicted

    async def _submit(
        self, claim: e.ClaimRef, build: tuple[Callable[[e.ClaimRef], e.WorkerCommand], ...]
    ) -> None:
        given_up, self._abandoned = self._abandoned, []
        if self.timeouts.armed:
            build = (*self.timeouts.begin(), *build)
        commands = tuple([make(claim) for make in build])
        if not commands and not given_up:
            return
        if given_up:
            commands = (*(e.AbandonWait(call, claim=claim) for call in given_up), *commands)
        try:
            entries = await self.port.submit(self.run_id, commands)
        except StaleClaim:
            self.evict()
            raise RunEvicted from None
        except UnknownOutcome as error:
            self.fall_back(str(error))
            raise RunEvicted from None
        except AikiError as error:
            if not error.retryable:
                self._abandoned = given_up + self._abandoned
                raise
            entries = await self._insist(commands)
        fault_point("worker.replied")
        self.feed(entries)
        if entries and self.replica.seq < entries[-1].seq:
            await self._catch_up(entries[-1].seq)

    async def _catch_up(self, seq: int) -> None:
        """Wait for what is on its way: Trio may resume two branches' replies in either order.

        Without this, the one that is resumed first would see its call unresolved and run it again.
        """
        while self.replica.seq < seq:
            if self.evicted:
                raise RunEvicted
            if self._gap is None:
                self._gap = trio.Event()
            await self._gap.wait()

    async def _insist(self, commands: tuple[e.WorkerCommand, ...]) -> tuple[e.Entry, ...]:
        """Submit again, with backoff, what the server could not write."""
        delay = RETRY_FIRST_S
        while not self.evicted:
            with trio.CancelScope(shield=True):
                await trio.sleep(delay)
            delay = min(delay * 2, RETRY_MAX_S)
            try:
                return await self.port.submit(self.run_id, commands)
            except StaleClaim:
                self.evict()
            except UnknownOutcome as error:
                self.fall_back(str(error))
            except AikiError as error:
                if not error.retryable:
                    raise
        raise RunEvicted

    async def _regain(self) -> e.ClaimRef:
        """Get the claim of a parked run back: its code goes on without any wait resolved."""
        self._claimed = trio.Event()
        with trio.CancelScope(shield=True):
            await self.port.reclaim(self.run_id)
            while self.replica.claim is None and not self.evicted:
                await self._claimed.wait()
                self._claimed = trio.Event()
        self._claimed = None
        if self.evicted or self.replica.claim is None:
            raise RunEvicted
        return self.replica.claim

    async def begin_wait(
        self, slot: Slot, command: Callable[[e.ClaimRef], e.WorkerCommand] | None
    ) -> None:
        """Register a wait; if it is all that the code does, give the claim back with it."""
        if self.multi:
            if command is not None:
                await self.submit(command)
            return
        if self.timeouts.armed and self.timeouts.settle():
            await trio.lowlevel.checkpoint_if_cancelled()
        park = self._parking((slot.call,))
        if command is not None:
            await self.submit(command, park)
        elif self.replica.claim is not None:
            await self.submit(park)

    async def begin_timeouts(self) -> None:
        """Let the time of the scopes that were entered begin, before something that takes long."""
        if self.timeouts.armed:
            await self.submit()
            await trio.lowlevel.checkpoint_if_cancelled()

    def await_child(self, child_id: str, record: Record) -> bool:
        """Let a child's end resolve a record, whenever it comes; True if it has come already."""
        ended = self.replica.await_child(child_id, record)
        if ended:
            self.pass_on()
        return ended

    async def park(self, waiting: tuple[e.Call, ...]) -> None:
        """Give the claim back: the code waits for nothing but `waiting`."""
        parked = trio.Event()
        try:
            claim = self.replica.claim
            if claim is not None and self._parked is None:
                self._parked = parked
                await self._submit(claim, (self._parking(waiting),))
        except RunEvicted:
            return
        finally:
            parked.set()
            if self._parked is parked:
                self._parked = None

    def _parking(self, waiting: tuple[e.Call, ...]) -> Callable[[e.ClaimRef], e.WorkerCommand]:
        unwinding = self.cancelled_at is not None
        timeouts = self.timeouts
        return lambda claim: e.ParkRun((*waiting, *timeouts.open_calls), unwinding, claim=claim)

    async def wait_retry(self, slot: Slot) -> None:
        """Wait until the next attempt of a task is due: a wait of the run, in which it may park."""
        record = slot.record
        assert record is not None, "only a call that began can wait for its retry"
        due = slot.retry_due = trio.Event()
        self.begun -= 1
        try:
            # Cancelled while the failure was reported, this call is over, and the code goes on.
            await trio.lowlevel.checkpoint_if_cancelled()
            if not self.multi and record.waiting and self.replica.claim is not None:
                await self.park((slot.call,))
            self.sequencer.kick()
            if record.waiting:
                await due.wait()
        finally:
            slot.retry_due = None
            if not due.is_set():
                self.begun += 1
