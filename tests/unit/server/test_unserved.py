"""Runs that nobody serves: found page by page, none twice, none left out."""

from __future__ import annotations

import pytest

from aiki_actors.queue import QueueKey
from aiki_actors.server import _unserved
from aiki_actors.server._unserved import Unserved
from aiki_actors.storage import MemoryStorage, RunFilter
from aiki_sdk import LimitExceeded
from aiki_sdk.protocol import RunStatus
from tests.contract.storage_cases import at, create

SERVED = QueueKey("default", "order", "1", "default")
WHERE = RunFilter("default")


async def stored() -> MemoryStorage:
    """Return a storage with sixty runs: every third is served, of every fifth the pool lacks."""
    storage = MemoryStorage()
    changes = [
        create(
            f"run_{number:02}",
            created_at=at(number),
            version="1" if number % 3 == 0 else "2",
            pool="gpu" if number % 5 == 0 else "default",
            status=RunStatus.RUNNING if number % 7 == 0 else RunStatus.QUEUED,
        )
        for number in range(60)
    ]
    await storage.append(changes)
    return storage


EXPECTED = [
    f"run_{number:02}"
    for number in reversed(range(60))
    if number % 7 and (number % 3 or not number % 5)
]


@pytest.mark.parametrize("looked_at_max", [1, 4, 10_000])
@pytest.mark.parametrize("limit", [1, 3, 500])
async def test_pages_lead_to_every_run_that_nobody_serves_once(
    looked_at_max: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_unserved, "LOOKED_AT_MAX", looked_at_max)
    monkeypatch.setattr(_unserved, "READ_MAX", 7)
    unserved = Unserved(await stored(), lambda key: key == SERVED)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await unserved.page(WHERE, limit=limit, cursor=cursor)
        assert len(page.runs) <= min(limit, looked_at_max)
        found += [run.run_id for run in page.runs]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == EXPECTED
    assert await unserved.count(WHERE) == len(EXPECTED)


async def test_a_status_that_is_not_queued_is_never_undeliverable() -> None:
    unserved = Unserved(await stored(), lambda _key: False)
    where = RunFilter("default", status=(RunStatus.RUNNING,))
    assert (await unserved.page(where, limit=10, cursor=None)).runs == ()
    assert await unserved.count(where) == 0


async def test_a_count_that_would_look_at_too_many_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_unserved, "COUNTED_MAX", 10)
    monkeypatch.setattr(_unserved, "READ_MAX", 7)
    unserved = Unserved(await stored(), lambda key: key == SERVED)
    with pytest.raises(LimitExceeded, match="narrow it"):
        await unserved.count(WHERE)
