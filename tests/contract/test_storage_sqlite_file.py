"""What a SQLite database of runs is: durable, migrated, small, indexed, safe from kill -9."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from aiki_actors.engine import RunQueued
from aiki_actors.storage import (
    Appended,
    RunFilter,
    SqliteSettings,
    open_sqlite,
)
from aiki_actors.storage._migration_files import Migration
from aiki_actors.storage.sqlite import _migrations as migrations_module, _queries as queries
from aiki_actors.storage.sqlite._migrations import migrations
from aiki_sdk import (
    StorageError,
)
from aiki_sdk.protocol import RunStatus
from tests.contract.storage_cases import NOW, QUICK, add, at, create, on_writer

OK = Appended()
IMPATIENT = attrs.evolve(QUICK, busy_timeout_s=0.05)


# --- What the file is -----------------------------------------------------------------------------


async def test_everything_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    change = create("run_1", reference_id="ref", labels={"k": "v"}, due_at=at(1))
    async with open_sqlite(file) as storage:
        await storage.append([change, add("run_1", 2)])
    async with open_sqlite(file) as storage:
        assert await storage.find("default", "order", "ref") == change.projection
        assert len(await storage.journal("run_1")) == 2
        assert await storage.append([add("run_1", 3)]) == [OK]


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
async def test_durability_is_what_the_settings_say(
    tmp_path: Path, synchronous: Any, level: int
) -> None:
    settings = SqliteSettings(synchronous=synchronous)
    found: list[object] = []

    def look(connection: sqlite3.Connection) -> None:
        for pragma in ("synchronous", "journal_mode", "foreign_keys"):
            found.extend(connection.execute(f"PRAGMA {pragma}").fetchone())

    async with open_sqlite(tmp_path / "runs.db", settings) as storage:
        await on_writer(storage, look)
    assert found == [level, "wal", 1]


@pytest.mark.parametrize(
    "wrong",
    [{"synchronous": "off"}, {"readers_max": 0}, {"busy_timeout_s": -1}, {"batch_changes_max": 0}],
)
def test_settings_outside_their_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SqliteSettings(**wrong)


async def test_migrations_are_applied_in_order_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "runs.db"
    async with open_sqlite(file, QUICK) as storage:
        await storage.append([create("run_1")])
    known = migrations()
    first = known[-1].version + 1
    steps = [
        Migration(first, "note", "CREATE TABLE note (text TEXT); -- a comment; with a semicolon"),
        Migration(first + 1, "more", "INSERT INTO note VALUES ('a;b');\nDROP TABLE note;\n"),
    ]
    steps[0] = attrs.evolve(steps[0], script="CREATE TABLE note (text TEXT);\n")
    monkeypatch.setattr(migrations_module, "migrations", lambda: (*known, *steps))
    for _ in range(2):
        async with open_sqlite(file, QUICK) as storage:
            assert await storage.run("run_1") is not None
    other = sqlite3.connect(file)
    versions = other.execute("SELECT version FROM schema_version ORDER BY 1").fetchall()
    other.close()
    assert versions == [(number,) for number in range(1, first + 2)]


@pytest.mark.parametrize("version", range(1, len(migrations())))
async def test_a_database_of_an_earlier_schema_is_brought_up_to_date(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "runs.db"
    known = migrations()
    with monkeypatch.context() as patch:
        patch.setattr(migrations_module, "migrations", lambda: known[:version])
        async with open_sqlite(file, QUICK) as storage:
            await storage.append([create("run_1", ended_at=NOW), create("run_2")])
    async with open_sqlite(file, QUICK) as storage:
        assert await storage.delete_ended(before=at(1), limit=9) == 1
        assert await storage.run("run_2") is not None


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "runs.db"
    async with open_sqlite(file, QUICK):
        pass
    known = migrations()
    bad = Migration(
        known[-1].version + 1, "bad", "CREATE TABLE note (text TEXT);\nDROP TABLE missing;\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr(migrations_module, "migrations", lambda: (*known, bad))
        with pytest.raises(StorageError, match="no such table: missing"):
            async with open_sqlite(file, QUICK):
                pass
    async with open_sqlite(file, QUICK) as storage:
        assert await storage.append([create("run_1")]) == [OK]
    other = sqlite3.connect(file)
    assert other.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'note'").fetchone() == (
        0,
    )
    other.close()


async def test_a_parked_run_weighs_less_than_one_and_a_half_kibibytes(tmp_path: Path) -> None:
    more = (RunQueued("start"), RunQueued("sleep"), RunQueued("parked"))
    async with open_sqlite(tmp_path / "runs.db", QUICK) as storage:
        before = await storage.size_bytes()
        names = [f"run_01KAPZ0000000000000000{number:06}" for number in range(3000)]
        parked: dict[str, Any] = {
            "status": RunStatus.SLEEPING,
            "due_at": NOW,
            "input_hash": "9f" * 32,
        }
        await storage.append([create(name, *more, **parked) for name in names])
        assert (await storage.size_bytes() - before) / len(names) < 1536


# --- Plans ----------------------------------------------------------------------------------------

FILTERS = [
    RunFilter("default"),
    RunFilter("default", status=(RunStatus.FAILED,)),
    RunFilter("default", status=(RunStatus.FAILED, RunStatus.STALLED), workflow="order"),
    RunFilter("default", workflow="order", version="1"),
    RunFilter("default", version="1"),
    RunFilter("default", reference_id="ref"),
    RunFilter("default", parent_id="run_1", status=(RunStatus.FAILED,)),
    RunFilter("default", labels=(("k", "v"),)),
    RunFilter("default", labels=(("k", "v"), ("l", "w")), status=(RunStatus.FAILED,)),
]
STATEMENTS = {
    "journal": queries.JOURNAL,
    "run": queries.ONE_RUN,
    "find": queries.FIND,
    "ready": queries.READY,
    "due": queries.DUE,
    "due-after": queries.DUE_AFTER,
    "claimed": queries.CLAIMED,
    "notices": queries.NOTICES,
    "ended-workflow": queries.NEXT_ENDED_WORKFLOW,
    "ended": queries.ENDED,
    "ended-in": queries.ENDED_IN,
    **{f"delete-{number}": text for number, text in enumerate(queries.DELETIONS)},
    **{
        f"listing-{number}-{end is not None}": query.text
        for number, where in enumerate(FILTERS)
        for end in (None, (NOW, "run_1"))
        if (query := queries.listing(where, 50, end)) is not None
    },
    **{
        f"counting-{number}": query.text
        for number, where in enumerate(FILTERS)
        if (query := queries.counting(where)) is not None
    },
}
harmless_scan = re.compile(
    # Of the queue's own index in its order, of an arm's page, of values that are given.
    r"SCAN (runs USING INDEX runs_by_readiness"
    r"|\(?subquery-\d+\)?|CONSTANT ROW|(json_each|label) VIRTUAL TABLE.*)$"
)


@pytest.mark.parametrize("name", sorted(STATEMENTS))
async def test_no_query_scans_a_table_or_sorts_what_an_index_orders(
    tmp_path: Path, name: str
) -> None:
    plan: list[str] = []

    def explain(connection: sqlite3.Connection) -> None:
        text = STATEMENTS[name]
        rows = connection.execute(f"EXPLAIN QUERY PLAN {text}", (0,) * text.count("?"))
        plan.extend(detail for *_, detail in rows)

    async with open_sqlite(None) as storage:
        await on_writer(storage, explain)
    bad = [line for line in plan if line.startswith("SCAN") and not harmless_scan.match(line)]
    # The pages of several statuses are merged; each of them comes in order.
    merged = "UNION" in STATEMENTS[name]
    sorts = [line for line in plan if "TEMP B-TREE FOR ORDER" in line and not merged]
    assert not bad, plan
    assert not sorts, plan


# --- kill -9 --------------------------------------------------------------------------------------

WRITER = """
import sys
import trio
from aiki_actors.storage import open_sqlite
from tests.contract.storage_cases import add, create

async def main():
    async with open_sqlite(sys.argv[1]) as storage:
        async def write(name):
            await storage.append([create(name)])
            seq = 2
            while True:
                await storage.append([add(name, seq, entries=2, epoch=seq)])
                seq += 2
                print(name, seq - 1, flush=True)
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(write, f"run_{number}")

trio.run(main)
"""


@pytest.mark.slow  # starts a process, and lets it write for a while
def test_nothing_that_was_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    paths = [root, root / "actors", root / "sdk"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    file = tmp_path / "runs.db"
    acknowledged: dict[str, int] = {}
    for round_ in range(2):
        target = tmp_path / "round" / str(round_)
        target.mkdir(parents=True)
        file = target / "runs.db"
        command = [sys.executable, "-c", WRITER, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
            assert child.stdout is not None
            acknowledged = {}
            for _ in range(400):
                name, seq = child.stdout.readline().split()
                acknowledged[name] = int(seq)
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:
                if len(line.split()) == 2 and line.endswith("\n"):
                    name, seq = line.split()
                    acknowledged[name] = int(seq)

        async def look(file: Path = file, acknowledged: dict[str, int] = acknowledged) -> None:
            async with open_sqlite(file) as storage:
                for name, last in acknowledged.items():
                    entries = await storage.journal(name)
                    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
                    assert len(entries) >= last
                    assert len(entries) % 2 == 1, "a change is there whole or not at all"
                    run = await storage.run(name)
                    assert run is not None
                    assert run.epoch == (len(entries) - 1 if len(entries) > 1 else 0)

        trio.run(look)
        assert len(acknowledged) == 8
