"""What an actor is: the class that users subclass, and what it is told.

An actor is private state plus one `handle`, run by one Trio task that takes one message at a time
from one mailbox. The kernel calls every hook from that task, so an actor needs no lock.

    spec.start() ─► started ─► handle … handle ─► ending ─► stopping
                                  ▲ │
                              watched (system messages overtake user messages)

An exception that leaves a hook is the actor's failure; its supervisor decides what happens next.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Generic, Never, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from aiki_actors.kernel._context import ActorContext
    from aiki_actors.kernel._refs import ActorRef

M_contra = TypeVar("M_contra", contravariant=True)

BATCH_MAX = 1_000
"""Default for `BatchActor.batch_max`; larger batches gain little and make handler calls long."""


class StopReason(Enum):
    """Why an actor's incarnation, or the actor itself, ended."""

    STOP = "stop"
    """Somebody asked for it, or its supervisor is stopping."""
    FINISHED = "finished"
    """It ended by itself: `stop_self` or `passivate`."""
    RESTART = "restart"
    """Its supervisor restarts it because of a sibling or because it is restarted itself."""
    FAILURE = "failure"
    """An exception left one of its hooks or background tasks."""
    CANCELLED = "cancelled"
    """The scope around the system, or a supervisor above, was cancelled."""
    KILL = "kill"
    """It was killed, or did not stop in time; `stopping` is not called for this one."""


@frozen(eq=False)
class Terminated:
    """The notice of a death watch: `ref` has ended for good and will not be restarted."""

    ref: ActorRef[Never]
    reason: StopReason
    error: BaseException | None


class Actor(Generic[M_contra]):
    """Private state and the handling of one message at a time.

    Subclasses hold their state in themselves; nothing else may touch it. A restart makes a fresh
    instance with `ChildSpec.start`, so state that must survive belongs somewhere durable.
    """

    kind: ClassVar[str] = ""
    """What the tree view calls it; the class's name if empty."""

    async def started(self, context: ActorContext[M_contra]) -> None:
        """Prepare before the first message; called after every restart too, on a new instance."""

    async def handle(self, message: M_contra) -> None:
        """Handle one message; an exception that leaves this is the actor's failure."""
        raise TypeError(f"{type(self).__name__} must define `handle` to take {type(message)}")

    def ending(self) -> None:
        """Hear at once that this incarnation ends, however it does, even if it was killed.

        Called before the background tasks are cancelled; what takes time belongs into `stopping`.
        """

    async def stopping(self, reason: StopReason) -> None:
        """Clean up after the last message; shielded, within what is left of `shutdown_s`.

        Also called after a failure, even one in `started`. Not called when killed.
        """

    async def watched(self, notice: Terminated) -> None:
        """Hear that a watched actor has ended for good."""

    def describe(self) -> str:
        """Return the state in one short line, for inspection; must not have side effects."""
        return ""


class BatchActor(Actor[M_contra]):
    """An actor that takes everything queued, up to `batch_max` messages, in one call."""

    batch_max: ClassVar[int] = BATCH_MAX

    async def handle_batch(self, messages: list[M_contra]) -> None:
        """Handle messages in their order; never empty. A failure loses the whole batch."""
        raise TypeError(f"{type(self).__name__} must define `handle_batch` ({len(messages)} wait)")

    async def handle(self, message: M_contra) -> None:
        """Handle a batch of one, so that a batch actor can be driven by hand as any other."""
        await self.handle_batch([message])
