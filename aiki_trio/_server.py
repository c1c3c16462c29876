"""`open_server`: a runtime that executes nothing itself and lets workers of other processes in.

It is `open_runtime` without workflows, and with what only a server needs: what workers announced
earlier is known from the start, and workers that an earlier process of this server had are waited
for a while before their runs are given to others.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiki_actors.storage import Storage
from aiki_sdk import (
    Clock,
    Ids,
    PayloadCodec,
    Rng,
    SystemClock,
    SystemIds,
    SystemRng,
    WorkflowRegistry,
)

from ._runtime import Runtime, running
from ._settings import RuntimeSettings, with_redis
from ._storage_url import open_storage


@asynccontextmanager
async def open_server(
    url: str = "sqlite:///aiki.db",
    *,
    settings: RuntimeSettings | None = None,
    namespace: str = "default",
    clock: Clock | None = None,
    ids: Ids | None = None,
    rng: Rng | None = None,
    codec: PayloadCodec | None = None,
    redis_url: str | None = None,
) -> AsyncGenerator[Runtime]:
    """Orchestrate runs for workers in other processes for as long as the block lasts.

    `runtime.serve()` opens the port that clients and workers come in by.

    Args:
        url: where runs are kept; see `open_storage`.
        settings: every limit and interval.
        namespace: the namespace of `runtime.client`.
        clock: wall and monotonic time. Default: the machine's.
        ids: where ids come from.
        rng: where chance (jitter) comes from.
        codec: for `runtime.client`: encrypts or compresses payloads, as the workers' codec does.
        redis_url: hands ready runs out through Redis Streams and publishes updates there; needs
            the extra `redis`. `settings.redis` has everything else about it.

    Raises:
        InvalidRequest: `redis_url` is not the address of a Redis server, or an extra that is needed
            is not installed; the message says.
        StorageError: the database cannot be used, or is in use.

    """
    settings = with_redis(settings or RuntimeSettings(), redis_url)
    chance = rng or SystemRng()
    opening = open_storage(url, settings.sqlite, postgres=settings.postgres, rng=chance)
    async with (
        opening as storage,
        serving(
            storage,
            settings=settings,
            namespace=namespace,
            clock=clock,
            ids=ids,
            rng=chance,
            codec=codec,
        ) as runtime,
    ):
        yield runtime


@asynccontextmanager
async def serving(
    storage: Storage,
    *,
    settings: RuntimeSettings,
    namespace: str = "default",
    clock: Clock | None = None,
    ids: Ids | None = None,
    rng: Rng | None = None,
    codec: PayloadCodec | None = None,
) -> AsyncGenerator[Runtime]:
    """Do as `open_server`, on storage that is open.

    Raises:
        StorageError: what workers announced before could not be read.

    """
    clock = clock or SystemClock()
    runtime = Runtime(
        settings=settings,
        registry=WorkflowRegistry(),
        storage=storage,
        clock=clock,
        ids=ids or SystemIds(clock),
        rng=rng or SystemRng(),
        namespace=namespace,
        codec=codec,
        serves=True,
    )
    await runtime.catalogue.load()
    async with running(runtime):
        yield runtime
