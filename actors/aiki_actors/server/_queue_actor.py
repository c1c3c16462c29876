"""The queue actor: the dispatcher's place in the tree, and what keeps its queue filled.

The queue in memory is bounded; when more runs are ready than it holds, the rest is known to the
database alone. Once half of the queue has been handed out, the actor reads on from there. It also
looks at intervals, so that a ready run which for whatever reason stands in no queue is found.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Final, Never

import trio
from attrs import define, field

from aiki_actors.kernel import Actor, ActorContext
from aiki_actors.storage import Storage
from aiki_sdk import AikiError

from ._dispatcher import Dispatcher
from ._runs import Runs

LOGGER: Final = logging.getLogger("aiki.server")


@define(eq=False)
class QueueActor(Actor[Never]):
    """Hands ready runs out through the dispatcher, and refills its queue from the database.

    Attributes:
        look_s: seconds between two looks at the database, when nothing asks for one.
        look_max_s: the pause doubles up to this while looking finds nothing; None: it does not.
        filled: set when the database was read once.

    """

    kind: ClassVar[str] = "queue"
    storage: Storage
    runs: Runs
    dispatcher: Dispatcher
    look_s: float
    look_max_s: float | None
    filled: trio.Event = field(factory=trio.Event)
    _refilled: int = field(default=0, init=False)

    async def started(self, context: ActorContext[Never]) -> None:
        """Begin to keep the queue filled."""
        context.start_soon(self._keep_filled)

    def describe(self) -> str:
        """Return how many runs wait, and for how many there would be room."""
        queue = self.dispatcher.matcher.queue
        more = ", more in the database" if queue.overflowed else ""
        return f"{len(queue)} ready{more}, {self._refilled} read from the database"

    async def _keep_filled(self) -> None:
        pause_s = self.look_s
        while True:
            try:
                found = await self._refill()
            except AikiError as error:
                LOGGER.warning("ready runs could not be read; trying again: %s", error)
                found = 0
            self.filled.set()
            self.dispatcher.hand_out_late()
            if found:
                pause_s = self.look_s
            elif self.look_max_s is not None:
                pause_s = min(pause_s * 2, self.look_max_s)
            with trio.move_on_after(pause_s):
                await self.dispatcher.drained.wait()

    async def _refill(self) -> int:
        """Put ready runs that stand in no queue into it; return how many."""
        queue = self.dispatcher.matcher.queue
        self.dispatcher.drained = trio.Event()
        queue.overflowed = False
        ready = await self.storage.ready(limit=queue.capacity)
        fresh = [
            run for run in ready if run.run_id not in queue and not self.runs.is_active(run.run_id)
        ]
        if fresh:
            self.dispatcher.ready(fresh)
        if len(ready) == queue.capacity:
            # There may be more behind these; they are read when half of these are gone.
            queue.overflowed = True
        self._refilled += len(fresh)
        return len(fresh)
