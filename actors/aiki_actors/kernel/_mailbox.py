"""A bounded mailbox and what it does when it is full.

The mailbox is a deque and the one parked task that reads it. Putting a message in is an append and
at most one reschedule; there is no channel, no lock and no task per message.

Invariants:
    `len(items) <= capacity`; blocked senders exist only while `len(items) == capacity`, so a newer
    `tell` can never overtake a sender that waits for room.
    A closed mailbox has `limit == 0`, so the hot path needs one comparison only.
"""

from collections import OrderedDict, deque
from enum import Enum
from typing import Generic, TypeVar

import trio
from attrs import define, field, frozen

from aiki_actors.kernel._dead_letters import DeadLetter, DeadLetterReason, DeadLetters
from aiki_actors.kernel._errors import (
    ActorStopped,
    KernelError,
    MailboxFull,
    MessageLost,
    SpecError,
)
from aiki_actors.kernel._reply import lose_reply

T = TypeVar("T")

MAILBOX_CAPACITY = 256
"""Default capacity: a run actor's mailbox in this project, and bursts of that size are normal."""


class Overflow(Enum):
    """What a full mailbox does with one more message."""

    REFUSE = "refuse"
    """`tell` and `send` raise `MailboxFull`."""
    BLOCK = "block"
    """`tell` raises `MailboxFull`; `send` and `ask` wait for room."""
    DROP_OLDEST = "drop oldest"
    """The message that waits longest becomes a dead letter."""
    DROP_NEWEST = "drop newest"
    """The new message becomes a dead letter."""


@frozen
class MailboxPolicy:
    """How many messages may wait (at least 1), and what happens to one more."""

    capacity: int = MAILBOX_CAPACITY
    overflow: Overflow = Overflow.REFUSE

    def __attrs_post_init__(self) -> None:
        """Refuse a capacity below one."""
        if self.capacity < 1:
            raise SpecError(f"MailboxPolicy.capacity is {self.capacity!r}; it must be at least 1")


@define(eq=False)
class _Sender(Generic[T]):
    """A message whose sender waits for room."""

    message: T
    admitted: bool = False


@define(eq=False)
class Mailbox(Generic[T]):
    """The queue of one actor; it survives the actor's restarts."""

    path: str
    policy: MailboxPolicy
    dead_letters: DeadLetters
    limit: int
    items: deque[T] = field(factory=lambda: deque[T](), init=False)
    waiter: trio.lowlevel.Task | None = field(default=None, init=False)
    closed: bool = field(default=False, init=False)
    senders: OrderedDict[trio.lowlevel.Task, _Sender[T]] | None = field(default=None, init=False)

    def wake(self) -> None:
        """Wake the reader if it is parked."""
        task = self.waiter
        if task is not None:
            self.waiter = None
            trio.lowlevel.reschedule(task)

    def abort_wait(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        """Unpark the reader because it is cancelled."""
        self.waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def park(self) -> None:
        """Wait until something wakes the reader."""
        self.waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self.abort_wait)

    def overflow(self, message: T) -> None:
        """Apply the policy to a message for which there is no room."""
        if self.closed:
            raise ActorStopped(self.path)
        match self.policy.overflow:
            case Overflow.REFUSE | Overflow.BLOCK:
                raise MailboxFull(self.path, self.policy.capacity)
            case Overflow.DROP_OLDEST:
                oldest = self.items.popleft()
                self.items.append(message)
                self.drop(oldest, DeadLetterReason.DROPPED_OLDEST)
            case Overflow.DROP_NEWEST:
                self.drop(message, DeadLetterReason.DROPPED_NEWEST)

    def drop(self, message: T, reason: DeadLetterReason) -> None:
        """Throw one message away because of overflow."""
        self.lose(message, reason, MessageLost(self.path, self.policy.capacity))

    def lose(self, message: object, reason: DeadLetterReason, error: KernelError) -> None:
        """Fail the reply of a message that will not be handled, and keep it as a dead letter."""
        lose_reply(message, error)
        self.dead_letters.add(DeadLetter(self.path, message, reason))

    async def wait_for_room(self, message: T) -> None:
        """Hand `message` over as soon as there is room; the mailbox must be full and blocking.

        Either the message is in the mailbox when this returns, or this raised and it is not.

        Raises:
            ActorStopped: The mailbox closed meanwhile.
        """
        assert not self.closed, "a closed mailbox has no room to wait for"
        assert len(self.items) >= self.limit, "wait_for_room needs a full mailbox"
        if self.senders is None:
            self.senders = OrderedDict()
        senders = self.senders
        task = trio.lowlevel.current_task()
        sender = senders[task] = _Sender(message)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            del senders[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if not sender.admitted:
            raise ActorStopped(self.path)

    def admit_sender(self) -> None:
        """Give the room just made to the sender that waits longest."""
        if self.senders:
            task, sender = self.senders.popitem(last=False)
            sender.admitted = True
            self.items.append(sender.message)
            trio.lowlevel.reschedule(task)

    def close(self) -> None:
        """Take no more messages; those that wait become dead letters. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.limit = 0
        if self.senders:
            senders, self.senders = self.senders, None
            for task in senders:
                trio.lowlevel.reschedule(task)
        while self.items:
            self.lose(self.items.popleft(), DeadLetterReason.ACTOR_STOPPED, ActorStopped(self.path))
