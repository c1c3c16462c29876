"""Bringing a database's schema up to date: numbered SQL files, each applied once, in order.

All missing ones are applied in one transaction, so that a database is never between two versions.
A database with a version that this release does not have, or of another program, is left alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from aiki_actors.faults import fault_point
from aiki_actors.storage._migration_files import Migration, migrations_in
from aiki_sdk import StorageError, StorageTooNew

APPLICATION_ID: Final = 0x41494B49
"""What marks a file as ours in its header: `AIKI`."""

_VERSION_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_version (
    version INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL
) STRICT
"""


def migrations() -> tuple[Migration, ...]:
    """Return every step of the schema that this release knows, in order."""
    return migrations_in(__name__.rpartition(".")[0])


def statements(script: str) -> Iterator[str]:
    """Split a script; `executescript` would commit before it and spoil the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), f"a migration ends in the middle of a statement: {statement!r}"


def migrate(connection: sqlite3.Connection, name: str) -> None:
    """Apply what is missing.

    Args:
        connection: in autocommit mode.
        name: the file, as people know it.

    Raises:
        StorageTooNew: a newer release has written to the database.
        StorageError: the file belongs to another program.
        sqlite3.Error: the driver failed; nothing was changed.
    """
    known = migrations()
    if schema_version(connection, name) == known[-1].version:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again: only now nobody else can be migrating it.
        version = schema_version(connection, name)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(_VERSION_TABLE)
        for step in known[version:]:
            for statement in statements(step.script):
                connection.execute(statement)
            fault_point("schema.migrating")
            connection.execute(
                "INSERT INTO schema_version VALUES (?, ?)", (step.version, step.name)
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def schema_version(connection: sqlite3.Connection, name: str) -> int:
    """Return the version of the schema, 0 for an empty database; refuse what is not for us."""
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables == 0:
        return 0
    if owner != APPLICATION_ID:
        raise StorageError(
            f"database {name} belongs to another program (application id {owner:#x}); "
            "choose another file",
            details={"database": name, "application_id": owner},
        )
    (version,) = connection.execute(
        "SELECT coalesce(max(version), 0) FROM schema_version"
    ).fetchone()
    newest = migrations()[-1].version
    if version > newest:
        raise StorageTooNew(
            f"database {name} has schema version {version}, which a newer release wrote; this one "
            f"knows versions up to {newest}: upgrade it",
            details={"database": name, "version": version, "version_max": newest},
        )
    return int(version)
