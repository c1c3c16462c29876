"""The place in the tree of something that runs for as long as its actor: one end of a queue."""

from __future__ import annotations

from typing import ClassVar, Never, Protocol

from attrs import define

from aiki_actors.kernel import Actor, ActorContext


class Loop(Protocol):
    """What runs until it is cancelled, and can be run again after it broke down."""

    async def run(self) -> None:
        """Run until cancelled."""
        ...

    def describe(self) -> str:
        """Say in one line how it goes."""
        ...


@define(eq=False)
class LoopActor(Actor[Never]):
    """Runs a loop under supervision: it is begun again, with what it knows, if it breaks down."""

    kind: ClassVar[str] = "queue"
    loop: Loop

    async def started(self, context: ActorContext[Never]) -> None:
        """Begin to run."""
        context.start_soon(self.loop.run)

    def describe(self) -> str:
        """Return how the loop goes."""
        return self.loop.describe()
