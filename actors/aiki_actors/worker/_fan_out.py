"""Many of one kind: `run.map` and `run.as_completed`, and which error counts when several fail.

Workers, as many as may run at once, take items in order. What an item does belongs to a branch of
its own, named by the item's number and not by the worker that took it: who takes which item is
left to the scheduler, and does not show. So ten thousand items need no ten thousand Trio tasks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sized
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from attrs import define, field

from aiki_sdk import current_workflow

from ._branches import Branch
from ._execution import Execution

LIMIT: Final = 100
"""Items at once, where nothing is said."""


@define(eq=False)
class Failures:
    """What branches failed with, and which of it came first, the same in each replay.

    Branches that fail between two results of the journal have no order but that of their numbers;
    what was raised while a branch was being cancelled counts after what was not.
    """

    execution: Execution
    _found: list[tuple[int, bool, int, Exception]] = field(
        factory=lambda: list[tuple[int, bool, int, Exception]](), init=False
    )

    def add(self, number: int, error: Exception) -> None:
        """Note what a branch failed with."""
        self._found.append((self.execution.deliveries, _unwound(error), number, error))

    @property
    def some(self) -> bool:
        """Whether a branch failed."""
        return bool(self._found)

    def raise_first(self) -> None:
        """Raise the first failure, if there is one."""
        if self._found:
            raise min(self._found, key=lambda found: found[:3])[3]


def _unwound(error: BaseException) -> bool:
    """Whether an error was raised while its branch was being cancelled."""
    context = error.__context__
    while context is not None and not isinstance(context, trio.Cancelled):
        context = context.__context__
    return context is not None


@define(eq=False)
class FanOut:
    """One `run.map` or `run.as_completed`."""

    execution: Execution
    function: Callable[[Any], Awaitable[Any]]
    source: Iterator[Any]
    workers: int
    root: Branch
    failures: Failures
    pool: Branch
    taken: int = 0

    @classmethod
    def of(
        cls,
        branch: Branch,
        execution: Execution,
        function: Callable[[Any], Awaitable[Any]],
        items: Iterable[Any],
        limit: int | None,
    ) -> FanOut:
        """Prepare it: one branch for all, in which number 0 is the workers' and n + 1 item n's."""
        workers = limit or LIMIT
        if isinstance(items, Sized):
            workers = min(workers, len(items))
        root = branch.child()
        failures = Failures(execution)
        return cls(execution, function, iter(items), workers, root, failures, root.child())

    def start(
        self, nursery: trio.Nursery, done: Callable[[int, Any, Any], Awaitable[None]]
    ) -> None:
        """Start the workers; `done` is given each item's number, the item and its result."""
        token = current_workflow.set(self.pool)
        try:
            for _ in range(self.workers):
                nursery.start_soon(self._work, nursery, done)
        finally:
            current_workflow.reset(token)

    async def _work(
        self, nursery: trio.Nursery, done: Callable[[int, Any, Any], Awaitable[None]]
    ) -> None:
        number = self.taken
        try:
            for item in self.source:
                number, self.taken = self.taken, self.taken + 1
                current_workflow.set(self.root.child())
                value = await self.function(item)
                await done(number, item, value)
        except Exception as error:  # noqa: BLE001  (it is raised by the whole)
            self.failures.add(number, error)
            nursery.cancel_scope.cancel()


async def map_all(fan_out: FanOut) -> list[Any]:
    """Return all results in the order of the items; the first failure cancels the rest."""
    results: list[Any] = []

    async def keep(number: int, _item: Any, value: Any) -> None:
        while len(results) <= number:
            results.append(None)
        results[number] = value

    async with trio.open_nursery() as nursery:
        fan_out.start(nursery, keep)
    fan_out.failures.raise_first()
    return results


@asynccontextmanager
async def in_order_of_completion(
    fan_out: FanOut,
) -> AsyncGenerator[trio.MemoryReceiveChannel[tuple[Any, Any]]]:
    """Give (item, result) pairs as they come; leaving the block cancels what is left."""
    send, receive = trio.open_memory_channel[tuple[Any, Any]](0)
    raised: list[Exception] = []

    async def hand_over(_number: int, item: Any, value: Any) -> None:
        await send.send((item, value))

    async def work(nursery: trio.Nursery) -> None:
        async with send, trio.open_nursery() as workers:
            fan_out.start(workers, hand_over)
        if fan_out.failures.some:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, nursery)
        try:
            yield receive
        except Exception as error:  # noqa: BLE001  (raised again below, without trio's group)
            raised.append(error)
        nursery.cancel_scope.cancel()
    receive.close()
    if raised:
        raise raised[0]
    fan_out.failures.raise_first()
