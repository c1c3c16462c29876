"""A one-shot answer that travels inside a message.

The asker creates the `Reply`, puts it into the message's field named `reply`, and waits. Whoever
handles the message answers once, at once or later (an actor may keep replies and answer many after
one commit). If the asker gave up, a late answer is ignored: nobody is there to be told.

Invariant: a reply is settled at most once; settling wakes at most one waiter.
"""

from typing import Generic, TypeVar, cast

import trio
from attrs import define, field

from aiki_actors.kernel._errors import KernelError, ReplyMisused

R = TypeVar("R")


@define(eq=False)
class Reply(Generic[R]):
    """A one-shot answer, made by the asker and carried in a message's field named `reply`."""

    _value: R | None = field(default=None, init=False)
    _error: BaseException | None = field(default=None, init=False)
    _settled: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _waiter: trio.lowlevel.Task | None = field(default=None, init=False)

    @property
    def done(self) -> bool:
        """Whether an answer would no longer reach anybody: it was answered, lost or given up."""
        return self._settled or self._closed

    def send(self, value: R) -> None:
        """Answer with `value`; does nothing if the asker gave up.

        Raises:
            ReplyMisused: It was answered before.
        """
        if self._admit_answer():
            self._value = value
            self._settle()

    def fail(self, error: BaseException) -> None:
        """Answer with an error, which the asker's wait raises; does nothing if the asker gave up.

        Raises:
            ReplyMisused: It was answered before.
        """
        if self._admit_answer():
            self._error = error
            self._settle()

    def lose(self, error: BaseException) -> None:
        """Settle with `error` if nobody did; later answers are ignored rather than refused.

        The kernel calls this for the reply of a message that will not be handled to its end.
        """
        if not self._settled and not self._closed:
            self._closed = True
            self._error = error
            self._settle()

    async def wait(self, deadline_s: float | None = None) -> R:
        """Wait for the answer; always a checkpoint. One task may wait, once.

        A cancelled or timed-out wait gives the reply up: a later answer is ignored.

        Args:
            deadline_s: Seconds to wait at most; `None` waits for ever.

        Raises:
            TooSlowError: No answer within `deadline_s` (Trio's own error).
            ReplyMisused: Another task waits already, or the reply was given up.
        """
        if deadline_s is not None:
            with trio.fail_after(deadline_s):
                return await self.wait()
        if self._settled:
            await trio.lowlevel.checkpoint()
        elif self._closed or self._waiter is not None:
            raise ReplyMisused("this reply is already being waited for, or was given up")
        else:
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up)
        return self._answer()

    async def wait_shielded(self) -> R:
        """Wait for the answer, deaf to cancellation; always a checkpoint of the scheduler.

        For answers that must be known once the question was asked, such as the outcome of a write.
        Whoever must answer has a deadline of its own; an actor that ends answers with an error.

        Raises:
            ReplyMisused: Another task waits already, or the reply was given up.
        """
        if self._settled:
            await trio.lowlevel.cancel_shielded_checkpoint()
        elif self._closed or self._waiter is not None:
            raise ReplyMisused("this reply is already being waited for, or was given up")
        else:
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(_stay)
        return self._answer()

    def _answer(self) -> R:
        if self._error is not None:
            raise self._error
        return cast("R", self._value)

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._closed = True
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _admit_answer(self) -> bool:
        if self._closed:
            return False
        if self._settled:
            raise ReplyMisused("this reply was answered before; answer each message once")
        return True

    def _settle(self) -> None:
        self._settled = True
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            trio.lowlevel.reschedule(waiter)


def _stay(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def lose_reply(message: object, error: KernelError) -> None:
    """Fail the unanswered reply that `message` carries, if it carries one."""
    reply: object = getattr(message, "reply", None)
    if isinstance(reply, Reply):
        reply.lose(error)
