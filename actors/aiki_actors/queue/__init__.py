"""How ready runs reach workers: the ready queue, the workers' slots, and the two matched.

Start reading at `_match.py`; what a worker serves is in `_served.py`. No I/O and no clock here:
the time comes in as an argument. What speaks to Redis is in `redis/`, which needs redis-py.
"""

from ._loop_actor import Loop as Loop, LoopActor as LoopActor
from ._match import Assignment as Assignment, Matcher as Matcher
from ._ready import CAPACITY as CAPACITY, LOW_WAIT as LOW_WAIT, ReadyQueue as ReadyQueue
from ._redis_settings import (
    RedisSettings as RedisSettings,
    RedisUrl as RedisUrl,
    redis_settings as redis_settings,
)
from ._served import (
    FairnessKey as FairnessKey,
    QueueKey as QueueKey,
    Served as Served,
    key_of as key_of,
)
from ._slots import WARM_MAX as WARM_MAX, Slots as Slots

__all__ = [
    "CAPACITY",
    "LOW_WAIT",
    "WARM_MAX",
    "Assignment",
    "FairnessKey",
    "Loop",
    "LoopActor",
    "Matcher",
    "QueueKey",
    "ReadyQueue",
    "RedisSettings",
    "RedisUrl",
    "Served",
    "Slots",
    "key_of",
    "redis_settings",
]
