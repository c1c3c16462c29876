"""Migrations, the check of the server, and who owns a database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest
import trio

import aiki_trio
from aiki_actors.storage.postgres import (
    migrate_postgres,
    open_postgres,
    open_postgres_reader,
    postgres_schema_version,
)
from aiki_actors.storage.postgres._migrations import MIGRATION_LOCK, lock_key, newest_version
from aiki_sdk import (
    StorageError,
    StorageLocked,
    StorageReadOnly,
    StorageTooNew,
    UnknownOutcome,
)
from aiki_trio.cli import main
from tests.contract.storage_cases import add, create
from tests.postgres.cases import IMPATIENT, OK, PATIENT, ask, entries_of, holding
from tests.servers.postgres import PostgresServer, binaries, postgres_server

NEWEST = newest_version()
KILL_WRITERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name = 'aiki-trio writer' AND datname = current_database()"
)
QUICK = attrs.evolve(IMPATIENT, statement_timeout_s=10)


@pytest.fixture
async def empty(shared: PostgresServer) -> AsyncGenerator[str, None]:
    """A database without a schema of ours."""
    name = await trio.to_thread.run_sync(shared.create_database)
    yield shared.url(name)
    await trio.to_thread.run_sync(shared.drop_database, name)


def aiki(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "aiki_trio.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- Migrations -----------------------------------------------------------------------------------


async def test_servers_that_migrate_at_once_take_turns(empty: str) -> None:
    found: list[tuple[int, int]] = []

    async def migrate() -> None:
        found.append(await migrate_postgres(empty))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(migrate)
    assert sorted(found) == [(0, NEWEST), *[(NEWEST, NEWEST)] * 4]


async def test_of_servers_that_open_an_empty_database_at_once_one_owns_it(empty: str) -> None:
    """They migrate in turn; then one is served, and the others are told by whom it is held."""
    settings = attrs.evolve(QUICK, migrate=True)
    owned, refused = trio.Event(), list[str]()

    async def serve() -> None:
        try:
            async with open_postgres(empty, settings) as storage:
                assert not owned.is_set()
                owned.set()
                assert await storage.append([create("run_1")]) == [OK]
                with trio.fail_after(30):
                    while len(refused) < 3:  # noqa: ASYNC110  # each of the others appends
                        await trio.sleep(0.01)
                assert await storage.append([add("run_1", 2)]) == [OK]
        except StorageLocked as error:
            refused.append(str(error))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(serve)
    assert all("in use by another server" in told for told in refused)
    assert await postgres_schema_version(empty) == (NEWEST, NEWEST)


async def test_a_migration_may_take_longer_than_any_statement(empty: str) -> None:
    settings = attrs.evolve(QUICK, statement_timeout_s=0.1, reply_margin_s=0.1)
    lock = f"SELECT pg_advisory_lock({MIGRATION_LOCK}, {lock_key(settings.schema)})"
    async with trio.open_nursery() as nursery, holding(empty, lock):
        nursery.start_soon(migrate_postgres, empty, settings)
        await trio.sleep(0.5)
        assert await postgres_schema_version(empty) == (0, NEWEST)
    assert await postgres_schema_version(empty) == (NEWEST, NEWEST)


async def test_a_database_without_a_schema_is_refused_unless_opening_may_migrate(
    empty: str,
) -> None:
    with pytest.raises(StorageError, match=r"no schema yet.*aiki migrate"):
        async with open_postgres(empty, QUICK):
            pass
    async with aiki_trio.open_storage(empty, postgres=QUICK, migrate=True) as storage:
        assert await storage.append([create("run_1")]) == [OK]
    assert await postgres_schema_version(empty) == (NEWEST, NEWEST)


async def test_a_migration_that_is_killed_in_the_middle_leaves_nothing(empty: str) -> None:
    """And the next one completes."""
    command = ("migrate", "--database-url", empty)
    killed = await trio.to_thread.run_sync(lambda: aiki(*command, AIKI_FAULT="schema.migrating:2"))
    assert killed.returncode == -signal.SIGKILL, killed
    assert await postgres_schema_version(empty) == (0, NEWEST)
    done = await trio.to_thread.run_sync(lambda: aiki(*command))
    assert (done.returncode, done.stdout) == (0, f"version 0 brought to {NEWEST}\n")


def test_aiki_migrate_tells_how_far_a_database_is(
    shared: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = shared.create_database()
    for url, none in ((shared.url(name), 1), (f"sqlite:///{tmp_path}/runs.db", 3)):
        command = ("migrate", "--database-url", url)
        assert main([*command, "--check"]) == none
        assert main(command) == 0
        assert "version 0 brought to" in capsys.readouterr().out
        assert main([*command, "--check"]) == 0
        assert "up to date" in capsys.readouterr().out
        assert main([*command, "--json"]) == 0
        assert capsys.readouterr().out.startswith('{"before": ')
    assert main(["migrate", "--database-url", "sqlite://"]) == 2
    shared.drop_database(name)


async def test_a_schema_of_a_newer_release_is_left_alone(url: str, shared: PostgresServer) -> None:
    await ask(shared, url, "INSERT INTO aiki.schema_version VALUES (41, 'later')")
    with pytest.raises(StorageTooNew, match=rf"version 41, .* up to {NEWEST}"):
        async with open_postgres(url, QUICK):
            pass
    with pytest.raises(StorageTooNew):
        await migrate_postgres(url)


async def test_a_schema_of_another_program_is_left_alone(
    empty: str, shared: PostgresServer
) -> None:
    await ask(shared, empty, "CREATE SCHEMA aiki")
    await ask(shared, empty, "CREATE TABLE aiki.theirs ()")
    with pytest.raises(StorageError, match="another program"):
        await migrate_postgres(empty)


async def test_a_user_who_was_given_a_schema_needs_no_right_to_create_one(
    empty: str, shared: PostgresServer
) -> None:
    await ask(shared, empty, "CREATE ROLE modest LOGIN")
    try:
        modest = empty.replace("postgres@", "modest@")
        with pytest.raises(StorageReadOnly, match="grant it the schema"):
            await migrate_postgres(modest)
        await ask(shared, empty, "CREATE SCHEMA aiki AUTHORIZATION modest")
        assert await migrate_postgres(modest) == (0, NEWEST)
        async with open_postgres(modest, QUICK) as storage:
            assert await storage.append([create("run_1")]) == [OK]
    finally:
        await ask(shared, empty, "DROP OWNED BY modest CASCADE")
        await ask(shared, empty, "DROP ROLE modest")


async def test_two_schemas_of_one_database_have_nothing_to_do_with_each_other(empty: str) -> None:
    one, two = (attrs.evolve(QUICK, schema=name, migrate=True) for name in ("one", "two"))
    async with open_postgres(empty, one) as first, open_postgres(empty, two) as second:
        assert await first.append([create("run_1")]) == [OK]
        assert await second.append([create("run_1")]) == [OK]
        assert await second.append([add("run_1", 2)]) == [OK]
        assert await entries_of(first, "run_1") == 1
        assert await first.size_bytes() > 0


async def test_a_schema_name_is_checked() -> None:
    with pytest.raises(ValueError, match="small letters"):
        attrs.evolve(PATIENT, schema='x"; DROP SCHEMA public')


# --- The server -----------------------------------------------------------------------------------


async def test_an_unsafe_server_is_refused_unless_a_setting_allows_it() -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        with postgres_server(None, "-c", f"{setting}=off") as server:
            with pytest.raises(StorageError, match=f"{setting}=off.*allow_unsafe"):
                await migrate_postgres(server.url())
            unsafe = attrs.evolve(QUICK, allow_unsafe=True, migrate=True)
            async with open_postgres(server.url(), unsafe) as storage:
                assert await storage.append([create("run_1")]) == [OK]


async def test_a_database_of_another_encoding_is_refused(shared: PostgresServer) -> None:
    create_it = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    await ask(shared, shared.url(), create_it)
    with pytest.raises(StorageError, match=r"LATIN1.*ENCODING 'UTF8'"):
        await migrate_postgres(shared.url("latin"))
    await trio.to_thread.run_sync(shared.drop_database, "latin")


@pytest.mark.parametrize("folder", binaries(), ids=lambda folder: folder.parent.name)
async def test_every_server_that_is_installed_here_will_do(folder: Path) -> None:
    with postgres_server(folder) as server:
        settings = attrs.evolve(QUICK, migrate=True)
        async with open_postgres(server.url(), settings) as storage:
            batch = [create("run_1", labels={"k": "v"}), create("run_2", supersedes="run_1")]
            assert await storage.append(batch) == [OK, OK]
            assert await storage.append([add("run_1", 2, ended_at=batch[0].entries[0].at)]) == [OK]
            assert await storage.delete_ended(before=batch[0].entries[0].at, limit=1) == 0
            assert await entries_of(storage, "run_1") == 2


# --- Owners ---------------------------------------------------------------------------------------


async def test_a_second_server_is_refused_and_told_who_owns_the_database(url: str) -> None:
    async with open_postgres(url, QUICK) as storage:
        with pytest.raises(
            StorageLocked, match=r"in use by another server \(on 127\.0\.0\.1:\d+, backend \d+"
        ):
            async with open_postgres(url, QUICK):
                pass
        async with open_postgres_reader(url, QUICK) as reader:
            assert await storage.append([create("run_1")]) == [OK]
            assert len(await reader.journal("run_1")) == 1
    async with open_postgres(url, QUICK) as storage:
        assert await storage.append([add("run_1", 2)]) == [OK]


async def test_a_server_that_was_shut_out_cannot_write_any_more(
    url: str, shared: PostgresServer
) -> None:
    """It lost its lock without noticing, and another took the database."""
    async with open_postgres(url, QUICK) as storage:
        assert await storage.append([create("run_1")]) == [OK]
        await ask(shared, url, "UPDATE aiki.writers SET token = 'another server' RETURNING 1")
        for _ in range(2):
            # Unknown, where the loss of the connection is noticed after the write was sent.
            with pytest.raises((StorageLocked, UnknownOutcome), match="taken over"):
                await storage.append([add("run_1", 2)])
            # Nor on a new connection.
            await ask(shared, url, KILL_WRITERS)
        assert await entries_of(storage, "run_1") == 1


async def test_the_lock_is_taken_again_when_its_connection_was_lost(
    url: str, shared: PostgresServer
) -> None:
    locks = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    kill = KILL_WRITERS.replace("writer", "owner")
    async with open_postgres(url, PATIENT) as storage:
        assert await ask(shared, url, locks) == 1
        assert await ask(shared, url, kill) == 1
        with trio.fail_after(10):
            while await ask(shared, url, locks) != 1:  # noqa: ASYNC110  # the server tells nobody
                await trio.sleep(0.01)
        assert await storage.append([create("run_1")]) == [OK]
    assert await ask(shared, url, locks) == 0
