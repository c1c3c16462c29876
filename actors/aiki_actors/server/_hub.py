"""The hub: who watches which runs, and who waits for their ends.

Run actors publish here after their entries are durable, synchronously and without waiting for
anybody; while nobody listens that costs a look into two dictionaries. A subscriber has a bounded
buffer: when it falls further behind it is cut off, told from where to resume, and never waited for.

Invariants:
    What a subscription gives is a gapless part of what was published since `subscribe` returned.
    A waiter made before the database was read misses no end that the database did not show.
    Nothing is kept of a run that nobody watches.

`Hub` is a plain object, so that publishing is a call; `HubActor` gives it its place in the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import ClassVar, Final, Generic, Never, Self, TypeVar

import trio
from attrs import define, field
from typing_extensions import override

from aiki_actors.kernel import Actor, StopReason
from aiki_sdk import ResultTimeout, Unavailable
from aiki_sdk.protocol import Update

from ._subscription import Subscription, UpdateFilter

BUFFER: Final = 1_000
"""Updates that a subscriber may be behind."""

O = TypeVar("O")  # noqa: E741  # the outcome of a run, whatever the owner of the hub says it is


@define(eq=False)
class EndWaiter(Generic[O]):
    """Waits for one end of one run, from the moment it is made; a context manager.

    Make it, then read the database, then wait: an end between the two is not missed.
    """

    _hub: Hub[O]
    run_id: str
    _found: list[O] = field(factory=lambda: list[O](), init=False)
    _stopped: bool = field(default=False, init=False)
    _event: trio.Event = field(factory=trio.Event, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def outcome(self) -> O | None:
        """How the run ended, if it has since this was made."""
        return self._found[0] if self._found else None

    async def wait(self, timeout_s: float | None = None) -> O:
        """Wait until the run ends, for `timeout_s` seconds at most; may be called again.

        Raises:
            ResultTimeout: the run has not ended in time.
            Unavailable: the hub has stopped.

        """
        if timeout_s is None:
            await self._event.wait()
        else:
            with trio.move_on_after(max(0.0, timeout_s)):
                await self._event.wait()
        if self._found:
            return self._found[0]
        if self._stopped:
            raise Unavailable(f"the server is stopping; ask for the result of {self.run_id} again")
        raise ResultTimeout(
            f"run {self.run_id} has not ended within {timeout_s} s; it goes on, so wait again",
            details={"run_id": self.run_id},
        )

    def close(self) -> None:
        """Wait no more; closing again does nothing."""
        self._hub.forget_waiter(self)

    def settle(self, outcome: O) -> None:
        """Tell the outcome; for the hub only."""
        self._found.append(outcome)
        self._event.set()

    def stop(self) -> None:
        """Tell that there will be none; for the hub only."""
        self._stopped = True
        self._event.set()


@define(eq=False)
class Hub(Generic[O]):
    """Fans updates out to subscribers and outcomes to waiters.

    Attributes:
        cut_off: how many subscribers were too slow so far.
        tap: given every update of every run, with its namespace; None: nobody wants that.

    """

    cut_off: int = field(default=0, init=False)
    tap: Callable[[str, Sequence[Update]], None] | None = field(default=None, init=False)
    _by_run: dict[str, dict[Subscription, None]] = field(
        factory=lambda: dict[str, dict[Subscription, None]](), init=False
    )
    _wide: dict[Subscription, None] = field(factory=lambda: dict[Subscription, None](), init=False)
    _waiters: dict[str, dict[EndWaiter[O], None]] = field(
        factory=lambda: dict[str, dict[EndWaiter[O], None]](), init=False
    )
    _stopped: bool = field(default=False, init=False)

    def interested(self, run_id: str) -> bool:
        """Tell whether anybody watches the run or waits for its end."""
        return self.streamed(run_id) or run_id in self._waiters

    def streamed(self, run_id: str) -> bool:
        """Tell whether anybody wants the run's updates; if not, `publish` may be given none."""
        return bool(self._wide) or run_id in self._by_run or self.tap is not None

    def publish(
        self, run_id: str, namespace: str, updates: Sequence[Update], outcome: O | None = None
    ) -> None:
        """Hand durable news of one run to everybody who wants them; never waits.

        Args:
            run_id: the run.
            namespace: the namespace that it belongs to.
            updates: what happened, in order of seq.
            outcome: how it ended, if it did.

        """
        if updates:
            if self.tap is not None:
                self.tap(namespace, updates)
            # Copies, for who is cut off leaves while we walk.
            for subscription in (*self._by_run.get(run_id, ()), *self._wide):
                if not subscription.offer(namespace, updates):
                    self.cut_off += 1
        if outcome is not None:
            for waiter in self._waiters.pop(run_id, ()):
                waiter.settle(outcome)

    def subscribe(
        self,
        run_id: str | None = None,
        *,
        where: UpdateFilter | None = None,
        buffer: int = BUFFER,
    ) -> Subscription:
        """Give every update from now on, of one run or of all, that passes the filter.

        Raises:
            Unavailable: the hub has stopped.
            ValueError: `buffer` is below one.

        """
        if buffer < 1:
            raise ValueError(f"subscribe(buffer={buffer}); it must be at least 1")
        self._check_open()
        subscription = Subscription(self._forget, run_id, where or UpdateFilter(), buffer)
        if run_id is None:
            self._wide[subscription] = None
        else:
            self._by_run.setdefault(run_id, {})[subscription] = None
        return subscription

    def attach(self, subscription: Subscription) -> None:
        """Give a subscription of all runs, made by the caller, every update from now on.

        Raises:
            Unavailable: the hub has stopped.

        """
        self._check_open()
        self._wide[subscription] = None

    def detach(self, subscription: Subscription) -> None:
        """Give an attached subscription nothing more; detaching again does nothing."""
        self._wide.pop(subscription, None)

    def waiter(self, run_id: str) -> EndWaiter[O]:
        """Begin to wait for the run's end; raises `Unavailable` if the hub has stopped."""
        self._check_open()
        waiter = EndWaiter(self, run_id)
        self._waiters.setdefault(run_id, {})[waiter] = None
        return waiter

    async def wait_end(self, run_id: str, timeout_s: float | None = None) -> O:
        """Wait for an end that has not come yet; see `EndWaiter.wait` for what it raises."""
        with self.waiter(run_id) as waiter:
            return await waiter.wait(timeout_s)

    def stop(self) -> None:
        """End every subscription and waiter, and take no more; stopping again does nothing."""
        self._stopped = True
        by_run, waiters = list(self._by_run.values()), list(self._waiters.values())
        for subscription in [*self._wide, *(one for group in by_run for one in group)]:
            subscription.stop()
        self._waiters.clear()
        for waiter in [one for group in waiters for one in group]:
            waiter.stop()

    def describe(self) -> str:
        """Say in one line how many listen."""
        watched = sum(map(len, self._by_run.values())) + len(self._wide)
        waiting = sum(map(len, self._waiters.values()))
        return f"{watched} subscribers, {waiting} waiters, {self.cut_off} cut off"

    def _forget(self, subscription: Subscription) -> None:
        if subscription.run_id is None:
            self._wide.pop(subscription, None)
            return
        group = self._by_run.get(subscription.run_id)
        if group is not None:
            group.pop(subscription, None)
            if not group:
                del self._by_run[subscription.run_id]

    def forget_waiter(self, waiter: EndWaiter[O]) -> None:
        """Drop a waiter that waits no more; for itself only."""
        group = self._waiters.get(waiter.run_id)
        if group is not None:
            group.pop(waiter, None)
            if not group:
                del self._waiters[waiter.run_id]

    def _check_open(self) -> None:
        if self._stopped:
            raise Unavailable("the server is stopping; try again")


@define(eq=False)
class HubActor(Actor[Never], Generic[O]):
    """The hub's place in the tree: ends its subscribers in order when the system stops."""

    kind: ClassVar[str] = "hub"
    hub: Hub[O]

    @override
    async def stopping(self, reason: StopReason) -> None:
        if reason not in (StopReason.RESTART, StopReason.FAILURE):
            self.hub.stop()

    @override
    def describe(self) -> str:
        return self.hub.describe()
