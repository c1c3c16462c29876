"""The handle on an actor: typed by the messages it takes, the same across restarts.

Invariant: one `ActorRef` per actor, so identity is equality and hashing is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import trio
from attrs import define

from aiki_actors.kernel._errors import AskTimeout, KernelError, SpecError
from aiki_actors.kernel._mailbox import Mailbox, Overflow
from aiki_actors.kernel._reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiki_actors.kernel._cell import Cell

M_contra = TypeVar("M_contra", contravariant=True)
R = TypeVar("R")


@define(eq=False, repr=False)
class ActorRef(Generic[M_contra]):
    """A stable, typed handle on one actor. Use it from Trio tasks of one loop only."""

    _mailbox: Mailbox[M_contra]
    cell: Cell[M_contra]
    """The kernel's own side of the actor; not for users."""

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"

    @property
    def name(self) -> str:
        """The actor's id among its siblings."""
        return self.cell.id

    @property
    def path(self) -> str:
        """Where the actor is in the tree, such as `/app/runs/run-1`."""
        return self.cell.path

    @property
    def alive(self) -> bool:
        """Whether the actor takes messages; true while it is being restarted."""
        return not self._mailbox.closed

    @property
    def mailbox_depth(self) -> int:
        """How many messages wait."""
        return len(self._mailbox.items)

    def tell(self, message: M_contra) -> None:
        """Put `message` into the mailbox; never blocks.

        Raises:
            ActorStopped: The actor has ended or is ending for good.
            MailboxFull: The mailbox is full and its policy is to refuse or to block.
        """
        mailbox = self._mailbox
        items = mailbox.items
        if len(items) >= mailbox.limit:
            mailbox.overflow(message)
            return
        items.append(message)
        task = mailbox.waiter
        if task is not None:
            mailbox.waiter = None
            trio.lowlevel.reschedule(task)

    async def send(self, message: M_contra) -> None:
        """Put `message` into the mailbox, waiting for room if its policy is to block.

        Always a checkpoint. If this is cancelled, the message was not put in.

        Raises:
            ActorStopped: The actor has ended or is ending for good.
            MailboxFull: The mailbox is full and its policy is to refuse.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not await self._deliver(message):
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def ask(self, build: Callable[[Reply[R]], M_contra], *, deadline_s: float | None) -> R:
        """Send the message that `build` makes around a fresh `Reply`, and wait for the answer.

        Args:
            build: Makes the message; the reply must be in its field named `reply`.
            deadline_s: Seconds for everything, waiting for room included; `None` is for ever.

        Raises:
            AskTimeout: No answer in time; the message may have been handled, or may yet be.
            ActorStopped: The actor ended before it handled the message.
            ActorFailed: The actor failed while it handled the message.
            MessageLost: The mailbox overflowed and dropped the message.
            MailboxFull: The mailbox is full and its policy is to refuse.
        """
        if self.cell.task is trio.lowlevel.current_task():
            raise KernelError(f"{self.path} asked itself, and would wait for ever; call a method")
        reply: Reply[R] = Reply()
        message = build(reply)
        if deadline_s is None:
            if len(self._mailbox.items) < self._mailbox.limit:
                self.tell(message)
            else:
                await self._deliver(message)
            return await reply.wait()
        if not deadline_s >= 0:
            raise SpecError(f"deadline_s of ask is {deadline_s!r}; it must be >= 0")
        with trio.move_on_after(deadline_s):
            await self._deliver(message)
            return await reply.wait()
        raise AskTimeout(self.path, deadline_s)

    async def ask_shielded(self, build: Callable[[Reply[R]], M_contra]) -> R:
        """Ask as `ask` does, without a deadline and deaf to cancellation.

        Cancellation is heeded only while there is no room for the message: then it was not sent.

        Raises:
            ActorStopped: The actor ended before it handled the message.
            ActorFailed: The actor failed while it handled the message.
            MessageLost: The mailbox overflowed and dropped the message.
            MailboxFull: The mailbox is full and its policy is to refuse.
        """
        reply: Reply[R] = Reply()
        message = build(reply)
        if len(self._mailbox.items) < self._mailbox.limit:
            self.tell(message)
        else:
            await self._deliver(message)
        return await reply.wait_shielded()

    async def _deliver(self, message: M_contra) -> bool:
        """Put `message` in, waiting for room if the policy says so; say whether this waited."""
        mailbox = self._mailbox
        if (
            len(mailbox.items) >= mailbox.limit
            and mailbox.policy.overflow is Overflow.BLOCK
            and not mailbox.closed
        ):
            await mailbox.wait_for_room(message)
            return True
        self.tell(message)
        return False

    def stop(self) -> None:
        """Ask the actor to end for good, after the handler that runs now; returns at once.

        The mailbox closes now: what waits in it becomes dead letters. The actor is not restarted,
        whatever its spec says. Past `shutdown_s` it is killed.
        """
        self.cell.stop()

    def kill(self) -> None:
        """End the actor for good at its next await, without calling `stopping`."""
        self.cell.kill()

    def suspend(self) -> None:
        """Handle no more messages until `resume`; stop, kill and death watch still work."""
        self.cell.suspend()

    def resume(self) -> None:
        """Handle messages again."""
        self.cell.resume()

    async def wait_stopped(self) -> None:
        """Wait until the actor has ended for good; returns at once (a checkpoint) if it has."""
        await self.cell.wait_stopped()
