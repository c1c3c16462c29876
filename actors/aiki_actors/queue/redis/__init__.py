"""Ready runs handed out through Redis Streams, and updates through its pub/sub; extra `redis`.

    server:  Publisher ──XADD──► aiki:<namespace>:<workflow>:<version>…  ──XREADGROUP──► Consumer
             UpdatePublisher ──PUBLISH──► aiki:<namespace>:updates       ──► aiki_sdk.pubsub

Every message is a hint; the database decides. Start reading at `_publisher.py` and `_consumer.py`;
names are in `_keys.py`, messages in `_messages.py`, and what is known of redis-py in
`_connection.py` alone. Importing this package without redis-py raises `ModuleNotFoundError` naming
the extra.
"""

from aiki_actors.queue._redis_settings import RedisSettings as RedisSettings, RedisUrl as RedisUrl

from ._connection import Connection as Connection
from ._consumer import ClaimAnswer as ClaimAnswer, ClaimPort as ClaimPort, Consumer as Consumer
from ._keys import (
    GROUP as GROUP,
    read_stream as read_stream,
    stream_of as stream_of,
)
from ._messages import Message as Message, decode as decode, encode as encode
from ._publisher import Publisher as Publisher
from ._redelivery import Redelivery as Redelivery
from ._trouble import (
    QueueHealth as QueueHealth,
    RedisFailed as RedisFailed,
    Trouble as Trouble,
)
from ._updates import UpdatePublisher as UpdatePublisher

__all__ = [
    "GROUP",
    "ClaimAnswer",
    "ClaimPort",
    "Connection",
    "Consumer",
    "Message",
    "Publisher",
    "QueueHealth",
    "Redelivery",
    "RedisFailed",
    "RedisSettings",
    "RedisUrl",
    "Trouble",
    "UpdatePublisher",
    "decode",
    "encode",
    "read_stream",
    "stream_of",
]
