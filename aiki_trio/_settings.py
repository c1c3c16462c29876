"""Every limit and interval of a runtime, with its default, in one place."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from attrs import Factory, evolve, frozen

from aiki_actors.engine import EngineLimits
from aiki_actors.queue import RedisSettings, redis_settings
from aiki_actors.server import KeeperSettings, TimerSettings
from aiki_actors.session import SessionLimits
from aiki_actors.storage import PostgresSettings, SqliteSettings
from aiki_actors.worker import WorkerSettings


@frozen
class RuntimeSettings:
    """How a runtime behaves; pass one to `open_runtime`.

    Attributes:
        limits: what a single run may do (journal entries, children, waits).
        worker: what the runtime's own worker takes on.
        keeper: how often the database is swept for what was forgotten, and retention.
        timers: how timers are kept.
        sessions: how workers in other processes are kept in touch with.
        sqlite: how a SQLite database is opened (durability above all).
        postgres: how a PostgreSQL database is used.
        redis: how Redis is used to hand runs out and to publish updates; None: it is not.
        mailbox_max: messages that may wait for one run.
        write_max: changes that may wait for the storage actor; further ones wait for room.
        on_divergence: what becomes of a run whose code no longer fits its journal, where its
            workflow does not say: `fail` ends it; `stall` keeps it, so that the code can be put
            right and the run requeued.
        collect_after: new objects after which Python looks for cyclic garbage, see `_garbage.py`;
            None: as often as it does by itself.
        blocked_after: how long code may block the event loop before it is reported; None: never.

    """

    limits: EngineLimits = Factory(EngineLimits)
    worker: WorkerSettings = Factory(WorkerSettings)
    keeper: KeeperSettings = Factory(KeeperSettings)
    timers: TimerSettings = Factory(TimerSettings)
    sqlite: SqliteSettings = Factory(SqliteSettings)
    postgres: PostgresSettings = Factory(PostgresSettings)
    sessions: SessionLimits = Factory(SessionLimits)
    redis: RedisSettings | None = None
    mailbox_max: int = 256
    write_max: int = 10_000
    on_divergence: Literal["fail", "stall"] = "fail"
    collect_after: int | None = 50_000
    blocked_after: timedelta | None = timedelta(seconds=2)


def with_redis(settings: RuntimeSettings, redis_url: str | None) -> RuntimeSettings:
    """Return the settings with the address of Redis, if one is given.

    Raises:
        InvalidRequest: it is not the address of a Redis server.

    """
    return evolve(settings, redis=redis_settings(redis_url, settings.redis))
