"""Journals as files: what is written is read back, and what is no journal is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aiki_actors import engine as e
from aiki_sdk import InvalidRequest, JournalVersionError
from aiki_trio.testing import Journal, load_journal


def journal() -> Journal:
    created = e.RunCreated("default", "order", "1.0.0", {"n": 2**70}, "0" * 64, labels={"ä": "ß"})
    bodies = [
        created,
        e.TaskSucceeded(e.Call("task:t:0", "0.1", 2), 3, {"text": "ü", "big": 2**64}),
        e.RunCompleted(None),
    ]
    entries = [
        e.Entry(seq, e.Micros(1_767_225_600_000_001 + seq), body)
        for seq, body in enumerate(bodies, start=1)
    ]
    return Journal("run_1", "order", "1.0.0", tuple(entries))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    journal().save(path)
    assert load_journal(path) == journal()


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "journal.json"
    path.write_text(json.dumps({**journal().to_json(), **changes}), encoding="utf-8")
    return path


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(JournalVersionError, match="has format 99"):
        load_journal(written(tmp_path, format=99))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entries": []}, "does not begin with run-created"),
        ({"entries": [{"seq": 1}]}, "is not valid"),
        ({"entries": None}, "is not valid"),
    ],
)
def test_what_is_no_journal_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        load_journal(written(tmp_path, **changes))


def test_a_gap_is_refused(tmp_path: Path) -> None:
    entries: Any = journal().to_json()["entries"]
    with pytest.raises(InvalidRequest, match="entry 3 stands where 2 belongs"):
        load_journal(written(tmp_path, entries=[entries[0], entries[2]]))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.json"):
        load_journal(tmp_path / "none.json")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="holds list"):
        load_journal(path)
