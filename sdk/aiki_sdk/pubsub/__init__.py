"""Updates over Redis pub/sub, for backend services: every run of a namespace, as it happens.

    async with subscribe_updates("redis://localhost", "default", client=client) as updates:
        async for update in updates:
            ...

Pub/sub promises nothing: what is published while nobody listens is gone. So a seq that is missing
is read from the server's journal, through the client. No library is needed: the little of Redis'
protocol that this takes is in `_resp.py`.
"""

from ._feed import UpdateFeed as UpdateFeed, subscribe_updates as subscribe_updates
from ._message import (
    MESSAGE_VERSION as MESSAGE_VERSION,
    read_update as read_update,
    update_message as update_message,
    updates_channel as updates_channel,
)

__all__ = [
    "MESSAGE_VERSION",
    "UpdateFeed",
    "read_update",
    "subscribe_updates",
    "update_message",
    "updates_channel",
]
