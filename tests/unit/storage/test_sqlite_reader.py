"""Reading a database file that another runtime owns: everything is seen, nothing is changed."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from aiki_actors.storage import RunFilter, is_owned, open_sqlite, open_sqlite_reader
from aiki_sdk import NotFound, Run, StorageCorrupt, StorageError, workflow
from tests.integration.runtimes import file_runtime

EVERYTHING = RunFilter(namespace="default")


@workflow(name="plain", version="1.0.0")
async def plain(run: Run) -> str:
    return "done"


async def test_a_reader_sees_what_the_owner_has_committed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with file_runtime(path, plain) as runtime, open_sqlite_reader(path) as reader:
        before = await reader.change_count()
        handle = await runtime.client.start(plain, reference_id="p-1")
        await handle.result()
        assert await reader.change_count() != before
        row = await reader.run(handle.id)
        assert row is not None
        assert await reader.find("default", "plain", "p-1") == row
        assert await reader.count(EVERYTHING) == 1
        assert (await reader.runs(EVERYTHING, limit=5)).runs == (row,)
        assert await reader.journal(handle.id) == await runtime.storage.journal(handle.id)
        assert await reader.ready(limit=5) == []
        assert await reader.faults() == []
        assert await reader.size_bytes() > 0


async def test_ownership_is_seen_from_outside_and_ends_with_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    assert not is_owned(path)
    async with open_sqlite(path):
        assert is_owned(path)
    assert not is_owned(path)


async def test_a_reader_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        async with open_sqlite_reader(tmp_path / "none.db"):
            pass
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_what_is_no_database_of_ours_is_refused(tmp_path: Path) -> None:
    garbage, empty = tmp_path / "garbage.db", tmp_path / "empty.db"
    garbage.write_bytes(b"no database" * 1_000)
    with pytest.raises(StorageCorrupt):
        async with open_sqlite_reader(garbage):
            pass
    empty.touch()
    with pytest.raises(StorageError, match="schema version 0"):
        async with open_sqlite_reader(empty):
            pass


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with open_sqlite(path), open_sqlite_reader(path) as reader:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM runs")
