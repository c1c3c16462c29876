"""A simulated process: what makes it die as a process does.

Cancelling a task runs its `finally` blocks, a SIGKILL does not. So whatever a node does to the
world it does through handles that ask the node first; when it is killed the node is marked dead
before anything is cancelled, and from then on each call through a handle raises `NodeDead` before
it touches the world. What its dying tasks still do is thereby nobody's business.

A node dies at once (`kill`), or at one of its next calls (`trip`): before or after that call has
had its effect. That is how a crash comes to stand between any two things that a process does.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from attrs import define, field

from ._trace import Trace


class NodeDead(BaseException):
    """This process was killed; nothing that it does counts any more.

    No `Exception`, so that no clean-up of the product's takes it for a failure to be handled.
    """


@define(eq=False)
class Node:
    """One life of a process.

    Attributes:
        name: what the trace calls it.
        alive: whether its calls reach the world.
        on_kill: what cancels its tasks, and tells others that it is gone.

    """

    name: str
    trace: Trace
    alive: bool = field(default=True, init=False)
    on_kill: list[Callable[[], None]] = field(
        factory=lambda: list[Callable[[], None]](), init=False
    )
    _trip: int | None = field(default=None, init=False)

    def check(self) -> None:
        """Come to a call: die here if that was planned.

        Raises:
            NodeDead: this process is dead.

        """
        if self._trip is not None:
            self._trip -= 1
            if self._trip <= 0:
                self.kill("at a call")
        if not self.alive:
            raise NodeDead(self.name)

    def trip(self, calls: int) -> None:
        """Die at the call with this number, counted from now."""
        if self.alive:
            self._trip = calls

    def kill(self, how: str) -> None:
        """Die now."""
        if not self.alive:
            return
        self.alive, self._trip = False, None
        self.trace.note(self.name, f"killed {how}")
        for act in self.on_kill:
            act()

    def retire(self) -> None:
        """End in order: all that was to be done is done."""
        if self.alive:
            self.alive, self._trip = False, None
            self.trace.note(self.name, "has ended")

    async def pause(self, seconds: float) -> None:
        """Spend time in a call; whether the node lives is asked before and after."""
        self.check()
        if seconds:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        self.check()
