"""The server is killed, stopped, read-only, full of others.

Nothing acknowledged is lost, and the storage goes on by itself as soon as it can.
"""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from aiki_actors.storage import ReferenceTaken, RunFilter, SeqConflict, Storage
from aiki_actors.storage.postgres import (
    PostgresSettings,
    PostgresStorage,
    migrate_postgres,
    open_postgres,
)
from aiki_sdk import (
    PayloadError,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UnknownOutcome,
)
from tests.contract.storage_cases import add, create, row
from tests.postgres.cases import (
    IMPATIENT,
    OK,
    PATIENT,
    ask,
    database_of,
    entries_of,
    holding,
    write_until,
)
from tests.servers.postgres import PostgresServer, postgres_server, standby_of

WRITERS = attrs.evolve(PATIENT, writers=3)
KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


async def in_thread(call: Callable[..., object], *values: object) -> None:
    await trio.to_thread.run_sync(call, *values)


@asynccontextmanager
async def migrated(
    server: PostgresServer, settings: PostgresSettings = PATIENT
) -> AsyncGenerator[PostgresStorage, None]:
    """Open the storage on the server's own database."""
    await migrate_postgres(server.url())
    async with open_postgres(server.url(), settings) as storage:
        yield storage


async def no_failure(error: Exception) -> None:
    raise error


@asynccontextmanager
async def load(storage: Storage, runs: int = 8) -> AsyncGenerator[dict[str, int], None]:
    """Write to some runs within the block; afterwards check what was acknowledged."""
    acknowledged: dict[str, int] = {}
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(runs):
            name = f"run_{number}"
            nursery.start_soon(write_until, storage, name, done, acknowledged, no_failure)
        try:
            yield acknowledged
        finally:
            done.set()
    for name, count in acknowledged.items():
        assert await entries_of(storage, name) == count, name


async def progress(acknowledged: dict[str, int], more: int = 20) -> None:
    """Wait until so many more entries were acknowledged."""
    goal = sum(acknowledged.values()) + more
    with trio.fail_after(30):
        while sum(acknowledged.values()) < goal:  # noqa: ASYNC110  # others count
            await trio.sleep(0.005)


# --- Crashes --------------------------------------------------------------------------------------


async def test_connections_killed_at_random_lose_nothing_and_repeat_nothing(
    url: str, shared: PostgresServer
) -> None:
    chance = random.Random(6)
    async with open_postgres(url, WRITERS) as storage, load(storage) as acknowledged:
        await progress(acknowledged)
        for _ in range(12):
            await ask(shared, url, f"{KILL} AND datname = current_database()")
            await trio.sleep(chance.random() * 0.05)
        await progress(acknowledged)


@pytest.mark.parametrize("how", ["kill", "immediate", "fast"])
async def test_a_server_that_is_restarted_under_load_loses_nothing(
    own_server: PostgresServer, how: str
) -> None:
    stop = {
        "kill": own_server.kill,
        "immediate": lambda: own_server.stop(signal.SIGQUIT),
        "fast": own_server.stop,
    }[how]
    async with migrated(own_server, WRITERS) as storage, load(storage) as acknowledged:
        for _ in range(2):
            await progress(acknowledged, 50)
            await in_thread(stop)
            own_server.start()
        await progress(acknowledged, 50)


async def test_after_a_failover_to_a_synchronous_standby_nothing_is_missing(
    own_server: PostgresServer,
) -> None:
    """The primary is killed under load; its standby is promoted, and found by the same URL."""
    with standby_of(own_server) as standby:
        hosts = f"127.0.0.1:{own_server.port},127.0.0.1:{standby.port}"
        url = own_server.url().replace(f"127.0.0.1:{own_server.port}", hosts)
        await migrate_postgres(url)
        async with open_postgres(url, WRITERS) as storage, load(storage) as acknowledged:
            await progress(acknowledged, 50)
            await in_thread(own_server.kill)
            await in_thread(standby.execute, "SELECT pg_promote()")
            await progress(acknowledged, 50)


async def test_a_full_disk_refuses_and_is_got_over(url: str, shared: PostgresServer) -> None:
    full = (
        "CREATE FUNCTION aiki.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )
    async with open_postgres(url, PATIENT) as storage:
        assert await storage.append([create("run_1")]) == [OK]
        await ask(shared, url, full)
        trigger = "CREATE TRIGGER full_disk BEFORE INSERT ON aiki.journal EXECUTE FUNCTION"
        await ask(shared, url, f"{trigger} aiki.full_disk()")
        with pytest.raises(StorageFull, match="free space") as refused:
            await storage.append([add("run_1", 2)])
        assert refused.value.retryable
        assert await entries_of(storage, "run_1") == 1
        await ask(shared, url, "DROP TRIGGER full_disk ON aiki.journal")
        assert await storage.append([add("run_1", 2)]) == [OK]


async def test_what_cannot_be_written_is_refused_and_the_pools_recover(
    own_server: PostgresServer,
) -> None:
    async with migrated(own_server, IMPATIENT) as storage:
        assert await storage.append([create("run_1")]) == [OK]
        await in_thread(own_server.stop)
        with pytest.raises(StorageUnavailable, match="cannot be reached") as refused:
            await storage.append([add("run_1", 2)])
        assert refused.value.retryable
        with pytest.raises(StorageUnavailable):
            await storage.run("run_1")
        with pytest.raises(StorageUnavailable):
            await storage.delete_ended(before=row("run_1").created_at, limit=1)
        own_server.start()
        assert await storage.append([add("run_1", 2)]) == [OK]
        assert await entries_of(storage, "run_1") == 2


async def test_a_stop_in_the_middle_of_everything_leaves_a_journal_of_what_was_said(
    own_server: PostgresServer,
) -> None:
    """Impatient writers: they give up, and what they were told is true."""
    told: list[Exception] = []

    async def note(error: Exception) -> None:
        assert isinstance(error, StorageError)
        told.append(error)
        await trio.sleep(0.05)

    acknowledged: dict[str, int] = {}
    done = trio.Event()
    async with migrated(own_server, IMPATIENT) as storage:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_until, storage, "run_1", done, acknowledged, note)
            await progress(acknowledged)
            await in_thread(own_server.kill)
            await trio.sleep(1)
            unsure = any(isinstance(error, UnknownOutcome) for error in told)
            if not unsure:
                own_server.start()
                await progress(acknowledged)
            else:
                nursery.cancel_scope.cancel()
                own_server.start()
            done.set()
        assert told
        slack = 1 if unsure else 0
        found = await entries_of(storage, "run_1")
        assert acknowledged["run_1"] <= found <= acknowledged["run_1"] + slack


# --- Refusals -------------------------------------------------------------------------------------


async def test_a_database_that_is_read_only_for_now_refuses_and_comes_back(
    url: str, shared: PostgresServer
) -> None:
    name = database_of(url)
    async with open_postgres(url, IMPATIENT) as storage:
        assert await storage.append([create("run_1")]) == [OK]
        await ask(shared, url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await ask(shared, url, f"{KILL} AND datname = current_database()")
        with pytest.raises(StorageError) as refused:
            await storage.append([add("run_1", 2)])
        assert refused.value.retryable or isinstance(refused.value, UnknownOutcome)
        assert await storage.run("run_1") is not None, "it can be read all the same"
        with pytest.raises(StorageUnavailable, match="read-only for now"):
            await storage.append([add("run_1", 2)])
        reset = f"ALTER DATABASE {name} RESET default_transaction_read_only"
        await ask(shared, shared.url(), reset)
        assert await storage.append([add("run_1", 2)]) == [OK]


async def test_a_statement_that_takes_too_long_is_refused_and_nothing_is_written(
    url: str, shared: PostgresServer
) -> None:
    async with open_postgres(url, IMPATIENT) as storage, holding(url, "LOCK TABLE aiki.runs"):
        with pytest.raises(StorageUnavailable):
            await storage.append([create("run_1")])
        with pytest.raises(StorageUnavailable, match=r"took too long|lock in time"):
            await storage.run("run_1")
        assert await storage.append([create("run_2"), create("run_2")][:0]) == []
    async with open_postgres(url, IMPATIENT) as storage:
        assert await storage.run("run_1") is None
        assert await storage.append([create("run_1")]) == [OK]


async def test_more_connections_than_the_server_allows_are_waited_for() -> None:
    limits = ("-c", "max_connections=5", "-c", "superuser_reserved_connections=0")
    with postgres_server(None, *limits, "-c", "max_wal_senders=0") as server:
        settings = attrs.evolve(PATIENT, readers_max=16)
        async with migrated(server, settings) as storage:
            assert await storage.append([create("run_1")]) == [OK]
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    nursery.start_soon(storage.run, "run_1")
        assert "too many clients" in server.log()


async def test_no_password_is_shown() -> None:
    with pytest.raises(StorageUnavailable) as refused:
        async with open_postgres("postgresql://me:hunter2@127.0.0.1:1/db", IMPATIENT):
            pass
    told = f"{refused.value!s} {refused.value!r} {refused.value.details}"
    assert "hunter2" not in told
    assert "127.0.0.1:1/db" in told


async def test_a_text_that_postgresql_cannot_hold_is_refused_and_spoils_nothing(url: str) -> None:
    async with open_postgres(url, PATIENT) as storage:
        for text in ("a\0b", "a\ud800b"):
            with pytest.raises(PayloadError):
                await storage.append([create("run_1"), create(text)])
        assert await storage.count(RunFilter("default")) == 0


async def test_a_broken_change_never_spoils_the_appends_of_others(url: str) -> None:
    async with open_postgres(url, PATIENT) as storage:
        results: list[object] = []

        async def write(attempt: int) -> None:
            try:
                results.extend(await storage.append([create(f"run_{attempt}", attempt=attempt)]))
            except PayloadError as error:
                results.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            for attempt in (1, 2**70, 2):
                nursery.start_soon(write, attempt)
        assert sorted(map(str, results)) == ["Appended()", "Appended()", "PayloadError"]
        assert await storage.count(RunFilter("default")) == 2


# --- Other transactions ---------------------------------------------------------------------------


async def waits_for_a_lock(server: PostgresServer, url: str) -> None:
    """Wait until some connection of the storage waits for a lock."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with trio.fail_after(10):
        while not await ask(server, url, waiting):  # noqa: ASYNC110  # the server tells nobody
            await trio.sleep(0.01)


async def test_a_deadlock_costs_time_and_nothing_else(url: str, shared: PostgresServer) -> None:
    async with open_postgres(url, PATIENT) as storage:
        await storage.append([create("run_1"), create("run_2")])
        lock = "SELECT FROM aiki.runs WHERE run_id = 'run_{}' FOR UPDATE"
        async with holding(url, "SET deadlock_timeout = '20s'", lock.format(2)) as other:
            results: list[object] = []

            async def write() -> None:
                changes = [add(name, 2, epoch=1) for name in ("run_1", "run_2")]
                results.extend(await storage.append(changes))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await waits_for_a_lock(shared, url)
                # The storage has run_1 and wants run_2: the circle closes, and it has to give way.
                await other.execute(lock.format(1))
                await other.execute("ROLLBACK")
        assert results == [OK, OK]
        assert "deadlock detected" in shared.log()
        assert await entries_of(storage, "run_1") == 2


async def test_a_serialization_failure_costs_time_and_nothing_else(
    url: str, shared: PostgresServer
) -> None:
    isolation = f"ALTER DATABASE {database_of(url)} SET default_transaction_isolation"
    await ask(shared, url, f"{isolation} = 'repeatable read'")
    async with open_postgres(url, PATIENT) as storage:
        await storage.append([create("run_1")])
        change = "UPDATE aiki.runs SET attempt = 7 WHERE run_id = 'run_1'"
        async with holding(url, change) as other:
            results: list[object] = []

            async def write() -> None:
                results.extend(await storage.append([add("run_1", 2, epoch=1)]))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await waits_for_a_lock(shared, url)
                await other.execute("COMMIT")
        assert results == [OK]
        assert "could not serialize access" in shared.log()


async def test_a_reference_id_that_two_transactions_want_goes_to_one(
    url: str, shared: PostgresServer
) -> None:
    """The other has not committed yet when the storage wants it; it is waited for."""
    async with open_postgres(url, PATIENT) as storage:
        await storage.append([create("run_0", reference_id="old", input_hash="aa")])
        take = "UPDATE aiki.runs SET reference_id = 'ref' WHERE run_id = 'run_0'"
        async with holding(url, take) as other:
            results: list[object] = []

            async def write() -> None:
                batch = [create("run_1", reference_id="ref"), create("run_2"), add("run_3", 2)]
                results.extend(await storage.append(batch))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await waits_for_a_lock(shared, url)
                await other.execute("COMMIT")
        assert results == [ReferenceTaken("run_0", "aa"), OK, SeqConflict("run_3", 2)]
