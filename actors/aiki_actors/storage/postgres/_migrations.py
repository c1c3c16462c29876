"""Bringing a database's schema up to date: numbered SQL files, each applied once, in order.

All missing ones are applied in one transaction, under a lock that only one server at a time can
hold: several that start at once wait for each other and find the work done; one that is killed in
the middle leaves nothing. A schema of a newer release, or of another program, is left alone.
"""

from __future__ import annotations

import zlib
from typing import Final

from aiki_actors.faults import fault_point
from aiki_actors.storage._migration_files import Migration, migrations_in
from aiki_sdk import StorageError, StorageTooNew

from ._connection import Link

MIGRATION_LOCK: Final = 0x41494B4D
OWNER_LOCK: Final = 0x41494B4F
"""First halves of the advisory locks' keys; the second is the schema's, see `lock_key`."""

_VERSION_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_version (
    version integer NOT NULL PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


def migrations() -> tuple[Migration, ...]:
    """Return every step of the schema that this release knows, in order."""
    return migrations_in(__name__.rpartition(".")[0])


def newest_version() -> int:
    """Return the version of the schema that this release works with."""
    return migrations()[-1].version


def lock_key(schema: str) -> int:
    """Return the second half of an advisory lock's key: a signed 32-bit number."""
    number = zlib.crc32(schema.encode())
    return number - (1 << 32) if number >= 1 << 31 else number


async def schema_version(link: Link) -> int:
    """Return the version of the schema, 0 if there is none; refuse what is not for us.

    Raises:
        StorageTooNew: a newer release has written to the database.
        StorageError: the schema belongs to another program.
        asyncpg.PostgresError: the server refused.
    """
    schema, name = link.target.settings.schema, link.target.name
    table = f'"{schema}".schema_version'
    if await link.value("SELECT to_regclass($1) IS NULL", table):
        tables = await link.value(
            "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)", schema
        )
        if tables:
            raise StorageError(
                f"schema {schema} of database {name} belongs to another program; choose another "
                "schema",
                details={"database": name, "schema": schema},
            )
        return 0
    version = int(await link.value(f"SELECT coalesce(max(version), 0) FROM {table}"))  # noqa: S608  # a checked name
    if version > newest_version():
        raise StorageTooNew(
            f"database {name} has schema version {version}, which a newer release wrote; this one "
            f"knows versions up to {newest_version()}: upgrade it",
            details={"database": name, "version": version, "version_max": newest_version()},
        )
    return version


async def migrate(link: Link) -> tuple[int, int]:
    """Apply what is missing; return the versions before and after.

    Raises:
        StorageTooNew: a newer release has written to the database.
        StorageError: the schema belongs to another program.
        asyncpg.PostgresError: the server refused; nothing was changed.
    """
    schema = link.target.settings.schema
    await link.execute("BEGIN")
    try:
        # Held until the transaction ends, however it ends; others wait here.
        await link.value("SELECT pg_advisory_xact_lock($1, $2)", MIGRATION_LOCK, lock_key(schema))
        version = await schema_version(link)
        missing = migrations()[version:]
        if missing:
            # `IF NOT EXISTS` asks for the right to create schemas all the same; who has been given
            # one needs no such right.
            if await link.value("SELECT to_regnamespace($1) IS NULL", schema):
                await link.execute(f'CREATE SCHEMA "{schema}"')
            await link.execute(_VERSION_TABLE)
        for step in missing:
            await link.execute(step.script)
            await link.value(
                "INSERT INTO schema_version (version, name) VALUES ($1, $2) RETURNING version",
                step.version,
                step.name,
            )
            fault_point("schema.migrating")
        await link.execute("COMMIT")
    except BaseException:
        # The transaction ends with its connection; that needs no answer from a server in trouble.
        link.drop()
        raise
    return version, newest_version()
