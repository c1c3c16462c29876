"""The write-ahead log is made long ahead, where that costs nobody anything."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from aiki_actors.storage.sqlite import _log_space
from aiki_actors.storage.sqlite._log_space import COMMITS_FIRST, PIECE_BYTES, LogSpace

WANTED = PIECE_BYTES + 12_345


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    return connection


def _length(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


def _commit(space: LogSpace, times: int) -> None:
    for _ in range(times):
        space.committed()


def test_it_becomes_as_long_as_it_will_be_after_some_commits_a_piece_at_a_time(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    connection = _connect(path)
    before = _length(path)
    space = LogSpace(path, WANTED)
    _commit(space, COMMITS_FIRST - 1)
    assert _length(path) == before
    _commit(space, 1)
    assert _length(path) == min(before + PIECE_BYTES, WANTED)
    _commit(space, 3)
    assert _length(path) == WANTED
    connection.close()


def test_what_is_written_over_it_is_found_again_after_a_crash(tmp_path: Path) -> None:
    """The files are copied as they lie on the disk, so that the log has to be recovered."""
    path, copy = tmp_path / "a.db", tmp_path / "b.db"
    connection = _connect(path)
    connection.execute("INSERT INTO t VALUES ('before')")
    _commit(LogSpace(path, WANTED), COMMITS_FIRST + 3)
    connection.execute("INSERT INTO t VALUES ('after')")
    copy.write_bytes(path.read_bytes())
    Path(f"{copy}-wal").write_bytes(Path(f"{path}-wal").read_bytes())
    connection.close()
    recovered = sqlite3.connect(copy)
    assert [x for (x,) in recovered.execute("SELECT x FROM t")] == ["before", "after"]
    assert recovered.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    recovered.close()


def test_a_disk_that_is_nearly_full_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    connection = _connect(path)
    before = _length(path)
    disk = os.statvfs(tmp_path)
    monkeypatch.setattr(
        _log_space, "ROOM_TIMES", disk.f_bavail * disk.f_frsize // WANTED + 1_000_000
    )
    _commit(LogSpace(path, WANTED), COMMITS_FIRST + 3)
    assert _length(path) == before
    connection.close()


def test_a_log_that_cannot_be_opened_is_none_of_anybodys_trouble(tmp_path: Path) -> None:
    _commit(LogSpace(tmp_path / "absent.db", WANTED), COMMITS_FIRST + 3)
    _commit(LogSpace(None, WANTED), COMMITS_FIRST + 3)
    assert list(tmp_path.iterdir()) == []
