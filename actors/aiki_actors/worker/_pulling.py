"""A worker in another process that takes runs from Redis Streams: the session claims, Redis hints.

Import this module only where Redis is used; it needs redis-py (extra `redis`).
"""

from __future__ import annotations

from attrs import define

from aiki_actors.queue.redis import ClaimAnswer, Message, QueueHealth
from aiki_sdk import AikiError

from ._remote import RemoteServer


@define(eq=False)
class SessionClaims:
    """What a consumer asks for, over the worker's session; see `queue.redis.ClaimPort`."""

    remote: RemoteServer

    def free(self) -> int:
        """Return how many more runs can be taken now."""
        return self.remote.room

    async def claim(self, message: Message) -> ClaimAnswer:
        """Ask the server for the claim of a message's run."""
        try:
            await self.remote.claim(message.run_id)
        except AikiError as error:
            return ClaimAnswer.UNKNOWN if error.retryable else ClaimAnswer.REFUSED
        return ClaimAnswer.HELD

    async def poisoned(self, message: Message) -> bool:
        """Have a run stalled; a run that is not queued any more needs no such thing."""
        try:
            await self.remote.poisoned(message.run_id, message.deliveries)
        except AikiError as error:
            return not error.retryable
        return True

    def health_changed(self, health: QueueHealth) -> None:
        """Pull from Redis, or fall back to what the session hands out."""
        self.remote.pulls(health.ok)

    def lost(self, number: int) -> None:
        """Have the server make sure of all that it published."""
        del number  # one is enough to look after them all
        self.remote.messages_lost()
