"""Bringing a database's schema up to date apart from a server, or telling how far it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiki_actors.storage._postgres_settings import DEFAULT_SETTINGS, PostgresSettings
from aiki_sdk import Rng, SystemRng

from ._asyncio import AsyncioHost, open_asyncio
from ._connection import Link, Target, connect
from ._errors import DRIVER_ERRORS, is_gone, translate
from ._migrations import migrate, newest_version, schema_version
from ._ownership import Backoff, check_server


async def version_of(host: AsyncioHost, target: Target, rng: Rng) -> int:
    """Return the version of the schema."""
    async with _migration_link(host, target, rng) as link:
        return await schema_version(link)


@asynccontextmanager
async def _migration_link(
    host: AsyncioHost, target: Target, rng: Rng
) -> AsyncGenerator[Link, None]:
    link = await _insist(host, target, Backoff(rng, target.settings.retry_s))
    try:
        yield link
    except DRIVER_ERRORS as error:
        raise translate(error, target.name) from error
    finally:
        await link.close()


async def _insist(host: AsyncioHost, target: Target, backoff: Backoff) -> Link:
    """Connect, again and again while the server is not there."""
    while True:
        try:
            return await connect(host, target, "migration")
        except DRIVER_ERRORS as error:
            if not is_gone(error) or not await backoff.pause():
                raise translate(error, target.name) from error


async def postgres_schema_version(
    url: str, settings: PostgresSettings = DEFAULT_SETTINGS
) -> tuple[int, int]:
    """Return the version of a database's schema, 0: none, and the one that this release needs.

    Raises:
        StorageTooNew: a newer release has written to it.
        StorageError: it belongs to another program, or cannot be reached.
    """
    async with open_asyncio() as host:
        return await version_of(host, Target(url, settings), SystemRng()), newest_version()


async def migrate_postgres(
    url: str, settings: PostgresSettings = DEFAULT_SETTINGS
) -> tuple[int, int]:
    """Bring a database's schema up to date; return the versions before and after.

    Several may do this at once, beside a server that is running: they take turns. One that is
    killed in the middle leaves the schema as it was.

    Raises:
        StorageTooNew: a newer release has written to it.
        StorageError: the server or the schema cannot be used; nothing was changed.
    """
    async with (
        open_asyncio() as host,
        _migration_link(host, Target(url, settings), SystemRng()) as link,
    ):
        await check_server(link)
        return await migrate(link)
