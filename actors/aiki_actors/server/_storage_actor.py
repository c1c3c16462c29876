"""The storage actor: group commit.

It takes whatever changes are waiting, from all runs, writes them in one transaction and answers
all their senders. While that commit is on disk the next batch gathers in the mailbox: this is where
the throughput comes from.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Final

from attrs import define, field, frozen

from aiki_actors.kernel import BatchActor, Reply, StopReason
from aiki_actors.storage import AppendResult, Change, Storage
from aiki_sdk import AikiError

LOGGER: Final = logging.getLogger("aiki.server")


@frozen
class Write:
    """Make a change durable and say what became of it."""

    change: Change
    reply: Reply[AppendResult]


@define(eq=False)
class StorageActor(BatchActor[Write]):
    """Writes everything that is waiting, in one transaction at a time."""

    kind: ClassVar[str] = "storage"
    batch_max: ClassVar[int] = 500
    storage: Storage
    commits: int = field(default=0, init=False)
    changes: int = field(default=0, init=False)

    async def handle_batch(self, messages: list[Write]) -> None:
        """Write the waiting changes; an error of the database is the answer to all of them."""
        try:
            results = await self.storage.append([message.change for message in messages])
        except AikiError as error:
            LOGGER.warning("%d changes were not written: %s", len(messages), error)
            for message in messages:
                message.reply.fail(error)
            return
        self.commits += 1
        self.changes += len(messages)
        for message, result in zip(messages, results, strict=True):
            message.reply.send(result)

    async def stopping(self, reason: StopReason) -> None:
        """Nothing to do: what was acknowledged is durable, the rest was never acknowledged."""

    def describe(self) -> str:
        """Return what was written so far."""
        return f"{self.changes} changes in {self.commits} commits"
