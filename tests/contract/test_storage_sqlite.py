"""What SQLite adds to the contract: group commit, errors with a name, and files that survive."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from aiki_actors.engine import RunQueued
from aiki_actors.storage import (
    Appended,
    RunFilter,
    SeqConflict,
    SqliteSettings,
    SqliteStorage,
    open_sqlite,
)
from aiki_actors.storage.sqlite._connections import Database
from aiki_actors.storage.sqlite._errors import translate
from aiki_actors.storage.sqlite._migrations import migrations
from aiki_actors.storage.sqlite._writer import CallRequest
from aiki_sdk import (
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageLocked,
    StorageReadOnly,
    StorageTooNew,
    UnknownOutcome,
)
from tests.contract.storage_cases import QUICK, add, create, on_writer, row, settle

OK = Appended()
IMPATIENT = attrs.evolve(QUICK, busy_timeout_s=0.05)


class Gate:
    """Holds the writing thread where it is, as a slow disk would."""

    def __init__(self, storage: SqliteStorage) -> None:
        self._open = threading.Event()
        storage._writer.submit(CallRequest(self._pass))

    def _pass(self, _connection: sqlite3.Connection) -> None:
        assert self._open.wait(30)

    def open(self) -> None:
        self._open.set()


async def commits_of(storage: SqliteStorage) -> list[str]:
    """Return a list that every COMMIT of the writer is added to."""
    seen: list[str] = []

    def trace(statement: str) -> None:
        if statement == "COMMIT":
            seen.append(statement)

    await on_writer(storage, lambda connection: connection.set_trace_callback(trace))
    return seen


# --- Group commit ---------------------------------------------------------------------------------


async def append_all(storage: SqliteStorage, count: int) -> list[str]:
    """Make `count` appends wait for the thread together; return the commits that they took."""
    commits = await commits_of(storage)
    gate = Gate(storage)

    async def write(name: str) -> None:
        assert await storage.append([create(name)]) == [OK]

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(write, f"run_{number:03}")
        await trio.testing.wait_all_tasks_blocked()
        gate.open()
    assert await storage.count(RunFilter("default")) == count
    return commits


async def test_appends_that_wait_together_share_one_transaction(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        assert len(await append_all(storage, 100)) == 1


async def test_a_shared_transaction_is_bounded_by_its_number_of_changes(tmp_path: Path) -> None:
    settings = attrs.evolve(QUICK, batch_changes_max=10)
    async with open_sqlite(tmp_path / "runs.db", settings) as storage:
        assert len(await append_all(storage, 25)) == 3


async def test_a_shared_transaction_is_bounded_by_its_bytes(tmp_path: Path) -> None:
    settings = attrs.evolve(QUICK, batch_bytes_max=1)
    async with open_sqlite(tmp_path / "runs.db", settings) as storage:
        assert len(await append_all(storage, 5)) == 5


async def test_sharing_a_transaction_changes_nothing_for_any_append(tmp_path: Path) -> None:
    """A refusal, and what follows it, is the affair of one append only."""
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        await storage.append([create("run_1"), add("run_1", 2)])
        gate = Gate(storage)
        results: dict[str, object] = {}

        async def write(name: str, *changes: Any) -> None:
            results[name] = await storage.append(changes)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "stale", add("run_1", 2), add("run_1", 3))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(write, "new", create("run_2"))
            nursery.start_soon(write, "fresh", add("run_1", 3))
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert results == {
            "stale": [SeqConflict("run_1", 2), SeqConflict("run_1", 3)],
            "new": [OK],
            "fresh": [OK],
        }


async def test_a_broken_change_never_spoils_the_appends_of_others(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        gate = Gate(storage)
        results: list[object] = []

        async def write(attempt: int) -> None:
            try:
                results.extend(await storage.append([create(f"run_{attempt}", attempt=attempt)]))
            except OverflowError as error:
                results.append(type(error))

        async with trio.open_nursery() as nursery:
            for attempt in (1, 2**70, 2):
                nursery.start_soon(write, attempt)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert sorted(map(str, results)) == ["<class 'OverflowError'>", "Appended()", "Appended()"]
        assert await storage.count(RunFilter("default")) == 2


# --- Errors ---------------------------------------------------------------------------------------


async def test_a_file_belongs_to_one_runtime_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    async with open_sqlite(file, QUICK) as storage:
        with pytest.raises(StorageLocked, match=r"runs\.db is in use by another runtime"):
            async with open_sqlite(file, QUICK):
                pass
        assert await storage.append([create("run_1")]) == [OK]
    async with open_sqlite(file, QUICK) as storage:
        assert await storage.run("run_1") == row("run_1")


async def test_a_program_that_writes_is_waited_for_and_then_told_of(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    async with open_sqlite(file, IMPATIENT) as storage:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageLocked, match=r"runs\.db is locked .*busy_timeout_s") as caught:
            await storage.append([create("run_1")])
        assert caught.value.retryable
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert await storage.run("run_1") is None
        other.close()
        assert await storage.append([create("run_1")]) == [OK]


async def test_opening_waits_for_a_program_that_migrates_and_then_tells_of_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "runs.db"
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageLocked):
        async with open_sqlite(file, IMPATIENT):
            pass
    other.close()


async def test_a_full_disk_writes_nothing_and_is_survived(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        await storage.append([create("run_1")])
        await on_writer(storage, lambda c: c.execute("PRAGMA max_page_count = 1"))
        big = [create(f"run_x{n}", *[RunQueued("x" * 3000)] * 9) for n in range(9)]
        with pytest.raises(StorageFull, match="free space") as caught:
            await storage.append([add("run_1", 2), *big])
        assert caught.value.retryable
        assert len(await storage.journal("run_1")) == 1
        assert await storage.count(RunFilter("default")) == 1
        await on_writer(storage, lambda c: c.execute("PRAGMA max_page_count = 100000"))
        assert set(await storage.append([add("run_1", 2), *big])) == {OK}


async def test_a_read_only_database_is_told_of(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        await on_writer(storage, lambda c: c.execute("PRAGMA query_only = ON"))
        with pytest.raises(StorageReadOnly, match=r"runs\.db cannot be written to"):
            await storage.append([create("run_1")])


async def test_a_file_that_is_no_database_is_told_of_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"not a database, just a text that is long enough to be looked at " * 20)
    before = file.read_bytes()
    with pytest.raises(StorageCorrupt, match=r"notes\.txt is not a SQLite database"):
        async with open_sqlite(file):
            pass
    assert file.read_bytes() == before


async def test_a_damaged_page_is_told_of(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    async with open_sqlite(file, QUICK) as storage:
        await storage.append([create(f"run_{n:04}", *[RunQueued("x")] * 9) for n in range(500)])
    data = bytearray(file.read_bytes())
    for page in range(4096 * 4, len(data), 4096):
        data[page : page + 200] = b"\xee" * 200
    file.write_bytes(data)

    async def read_all() -> None:
        async with open_sqlite(file, QUICK) as storage:
            for number in range(500):
                await storage.journal(f"run_{number:04}")

    with pytest.raises(StorageCorrupt, match=r"runs\.db is damaged .*restore a backup"):
        await read_all()


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "theirs.db"
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()
    with pytest.raises(StorageError, match=r"theirs\.db belongs to another program"):
        async with open_sqlite(file):
            pass


async def test_a_newer_database_is_refused_with_both_versions(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    async with open_sqlite(file, QUICK):
        pass
    other = sqlite3.connect(file)
    other.execute("INSERT INTO schema_version VALUES (41, 'later')")
    other.commit()
    other.close()
    newest = migrations()[-1].version
    with pytest.raises(StorageTooNew, match=rf"version 41, .* up to {newest}"):
        async with open_sqlite(file, QUICK):
            pass


@pytest.mark.parametrize("name", ["missing/runs.db", "."])
async def test_a_path_that_cannot_be_opened_is_told_of(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match=r"(check that .* folder|cannot be opened)"):
        async with open_sqlite(tmp_path / name):
            pass


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StorageLocked),
        (sqlite3.SQLITE_FULL, StorageFull),
        (sqlite3.SQLITE_READONLY_DIRECTORY, StorageReadOnly),
        (sqlite3.SQLITE_CORRUPT_INDEX, StorageCorrupt),
        (sqlite3.SQLITE_IOERR_FSYNC, StorageError),
        (sqlite3.SQLITE_NOMEM, StorageError),
        (None, StorageError),
    ],
)
def test_every_driver_error_names_the_file(code: int | None, expected: type[StorageError]) -> None:
    error = sqlite3.OperationalError("boom")
    if code is not None:
        error.sqlite_errorcode = code
    ours = translate(error, "/data/runs.db")
    assert type(ours) is expected
    assert "/data/runs.db" in ours.message
    assert "boom" in ours.message
    assert ours.details["sqlite_errorcode"] == code


# --- A commit that fails --------------------------------------------------------------------------


class Flaky(sqlite3.Connection):
    """Fails once at COMMIT: `before` it happened or `after`."""

    fail: str | None = None

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and Flaky.fail is not None:
            when, Flaky.fail = Flaky.fail, None
            super().execute("COMMIT" if when == "after" else "ROLLBACK")
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *args)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> type[Flaky]:
    """Make every connection one whose next commit can be made to fail."""
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Flaky)
    )
    monkeypatch.setattr(Flaky, "fail", None)
    return Flaky


@pytest.mark.parametrize("where", ["runs.db", None])
async def test_a_commit_that_failed_but_happened_is_a_success(
    tmp_path: Path, flaky: type[Flaky], where: str | None
) -> None:
    async with open_sqlite(where and tmp_path / where, QUICK) as storage:
        flaky.fail = "after"
        batch = [create("run_1"), create("run_1"), create("run_2")]
        assert await storage.append(batch) == [OK, SeqConflict("run_1", 1), OK]
        assert await storage.append([add("run_2", 2)]) == [OK]


async def test_a_commit_that_failed_and_did_not_happen_is_an_error(
    tmp_path: Path, flaky: type[Flaky]
) -> None:
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        flaky.fail = "before"
        with pytest.raises(StorageError, match="disk I/O error") as caught:
            await storage.append([create("run_1")])
        assert type(caught.value) is StorageError
        assert await storage.append([create("run_1")]) == [OK]


async def test_only_a_commit_that_cannot_be_looked_up_is_unknown(
    tmp_path: Path, flaky: type[Flaky], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        await storage.append([create("run_1")])

        def refuse(self: Database, settings: SqliteSettings) -> sqlite3.Connection:
            raise sqlite3.OperationalError("unable to open database file")

        flaky.fail = "after"
        with monkeypatch.context() as patch:
            patch.setattr(Database, "connect", refuse)
            with pytest.raises(UnknownOutcome, match="cannot tell whether"):
                await storage.append([add("run_1", 2)])
        assert len(await storage.journal("run_1")) == 2
        assert await storage.append([add("run_1", 3)]) == [OK]
        # Without any entry there is nothing to look for.
        flaky.fail = "before"
        with pytest.raises(UnknownOutcome):
            await storage.append([settle("run_1", 4, "n")])


# --- Cancellation and closing ---------------------------------------------------------------------


async def test_a_cancelled_append_returns_what_became_of_it(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        gate = Gate(storage)
        results: list[object] = []
        scope = trio.CancelScope()

        async def write() -> None:
            with scope:
                results.extend(await storage.append([create("run_1"), add("run_1", 9)]))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert results == []
            gate.open()
        assert results == [OK, SeqConflict("run_1", 9)]
        assert scope.cancelled_caught, "the cancellation is delivered after the answer"


async def test_a_cancelled_append_waits_for_the_disk_only_so_long(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        gate = Gate(storage)
        started = trio.current_time()
        with (
            trio.CancelScope(deadline=started + 1),
            pytest.raises(UnknownOutcome, match="outcome_wait_s"),
        ):
            await storage.append([create("run_1")])
        assert trio.current_time() - started == pytest.approx(1 + QUICK.outcome_wait_s)
        gate.open()


async def test_closing_waits_for_what_was_begun(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    threads = threading.active_count()
    async with trio.open_nursery() as nursery:
        async with open_sqlite(file, QUICK) as storage:
            gate = Gate(storage)
            nursery.start_soon(storage.append, [create("run_1")])
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert not any(thread.name.startswith("sqlite") for thread in threading.enumerate())
    assert threading.active_count() <= threads + 1, "only Trio's own idle worker is left"
    with pytest.raises(StorageError, match="is closed"):
        await storage.append([create("run_2")])
    async with open_sqlite(file, QUICK) as storage:
        assert await storage.run("run_1") is not None


async def test_opening_can_be_cancelled(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_sqlite(tmp_path / "runs.db", QUICK):
            pass
    assert scope.cancelled_caught
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        assert await storage.append([create("run_1")]) == [OK]


async def test_reading_connections_are_bounded_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[sqlite3.Connection] = []
    connect_reader = Database.connect_reader

    def counted(self: Database, settings: SqliteSettings) -> sqlite3.Connection:
        opened.append(connect_reader(self, settings))
        return opened[-1]

    monkeypatch.setattr(Database, "connect_reader", counted)
    settings = attrs.evolve(QUICK, readers_max=2)
    async with open_sqlite(tmp_path / "runs.db", settings) as storage:
        await storage.append([create("run_1")])
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(storage.journal, "run_1")
        assert 1 <= len(opened) <= 2
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")
