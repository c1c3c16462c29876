"""One subscriber's bounded view of what the hub publishes.

Invariant: at most `buffer` updates wait; one more, and the subscriber is cut off and its buffer is
given free, so that a reader that never reads costs a constant.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from types import TracebackType
from typing import ClassVar, Self, assert_never

import trio
from attrs import define, field, frozen

from aiki_sdk import AikiError, Unavailable
from aiki_sdk.protocol import RunStatus, Update


class SubscriberTooSlow(AikiError):
    """The subscriber fell behind by more than its buffer; what it had not read is dropped.

    Raised when a reader of a live stream takes less than happens, for longer than its buffer
    lasts.

    What to do: Subscribe again after the cursors in `details`, and read faster or less.

    `last_seqs` is, for the runs read last (at most as many as the buffer is long), the seq of the
    last update read: resume from there.
    """

    code: ClassVar[str] = "subscriber-too-slow"
    retryable: ClassVar[bool] = True

    def __init__(self, buffer: int, last_seqs: Mapping[str, int]) -> None:
        """Name the buffer's length and where to resume."""
        super().__init__(
            f"the subscriber was more than {buffer:,} updates behind and was cut off; "
            "subscribe again and resume after the last seq read of each run",
            details={"buffer": buffer, "last_seqs": dict(last_seqs)},
        )

    @property
    def last_seqs(self) -> dict[str, int]:
        """Run ids and the seq of the last update of each that was read."""
        found = self.details.get("last_seqs")
        if not isinstance(found, dict):
            return {}
        return {run_id: seq for run_id, seq in found.items() if isinstance(seq, int)}


@frozen
class UpdateFilter:
    """Which updates a subscriber wants; None: any. All that is given must hold."""

    namespace: str | None = None
    workflow: str | None = None
    status: tuple[RunStatus, ...] | None = None

    def selects(self, namespace: str, update: Update) -> bool:
        """Tell whether the subscriber wants this update of a run in `namespace`."""
        return (
            (self.namespace is None or namespace == self.namespace)
            and (self.workflow is None or update.workflow == self.workflow)
            and (self.status is None or update.status in self.status)
        )


class _End(Enum):
    """Why a subscription gives no more."""

    CLOSED = auto()
    STOPPED = auto()
    TOO_SLOW = auto()


@define(eq=False)
class Subscription:
    """One subscriber's view: what was published since it was made and passes its filter.

    A context manager: leaving it closes it. One task reads at a time.
    """

    _forget: Callable[[Subscription], None]
    run_id: str | None
    where: UpdateFilter
    buffer: int
    _updates: deque[Update] = field(factory=lambda: deque[Update](), init=False)
    _last_seqs: OrderedDict[str, int] = field(factory=lambda: OrderedDict[str, int](), init=False)
    _end: _End | None = field(default=None, init=False)
    _reading: bool = field(default=False, init=False)
    _parked: trio.lowlevel.Task | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        return await self.next()

    def __len__(self) -> int:
        return len(self._updates)

    async def next(self) -> Update:
        """Wait for the next update. A checkpoint; cancelled, it loses nothing.

        Raises:
            SubscriberTooSlow: the reader fell behind by more than the buffer.
            Unavailable: the hub has stopped, and everything published before was read.
            ClosedResourceError: it was closed (Trio's own error).
            BusyResourceError: another task is reading (Trio's own error).

        """
        return (await self.next_batch(1))[0]

    async def next_batch(self, limit: int = 100) -> list[Update]:
        """Wait for updates and return up to `limit` that are there; never empty. See `next`."""
        if limit < 1:
            raise ValueError(f"next_batch(limit={limit}); it must be at least 1")
        if self._reading:
            raise trio.BusyResourceError("another task is reading this subscription")
        self._reading = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._updates:
                self._raise_end()
                self._parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)
        finally:
            self._reading = False
        # No checkpoint from here on: what leaves the buffer reaches the reader.
        count = min(limit, len(self._updates))
        batch = [self._updates.popleft() for _ in range(count)]
        self._note_read(batch)
        return batch

    def close(self) -> None:
        """Take no more updates and drop what was not read; closing again does nothing."""
        self._finish(_End.CLOSED)

    def offer(self, namespace: str, updates: Iterable[Update]) -> bool:
        """Take what passes the filter; False: this was too much, the subscriber is cut off.

        For the hub only.
        """
        if self._end is not None:
            return True
        for update in updates:
            if self.where.selects(namespace, update):
                if len(self._updates) >= self.buffer:
                    self._finish(_End.TOO_SLOW)
                    return False
                self._updates.append(update)
        if self._updates:
            self._wake()
        return True

    def stop(self) -> None:
        """End after what is in the buffer; for the hub only."""
        self._finish(_End.STOPPED)

    def _finish(self, end: _End) -> None:
        if self._end is _End.CLOSED or (self._end is not None and end is not _End.CLOSED):
            return
        self._end = end
        if end is not _End.STOPPED:
            self._updates.clear()
        self._forget(self)
        self._wake()

    def _wake(self) -> None:
        task, self._parked = self._parked, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _raise_end(self) -> None:
        match self._end:
            case None:
                return
            case _End.CLOSED:
                raise trio.ClosedResourceError("this subscription was closed")
            case _End.STOPPED:
                raise Unavailable("the server is stopping; subscribe again to resume")
            case _End.TOO_SLOW:
                raise SubscriberTooSlow(self.buffer, self._last_seqs)
            case _:
                assert_never(self._end)

    def _note_read(self, batch: list[Update]) -> None:
        last_seqs = self._last_seqs
        for update in batch:
            last_seqs[update.run_id] = update.seq
            last_seqs.move_to_end(update.run_id)
        while len(last_seqs) > self.buffer:
            last_seqs.popitem(last=False)
