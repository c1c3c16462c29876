"""Every storage: what is cancelled, what cannot be stored, and what is not shared."""

from __future__ import annotations

import attrs
import pytest
import trio

from aiki_actors.engine import Call, Entry, TaskSucceeded
from aiki_actors.storage import (
    Appended,
    Change,
    RunFilter,
    Storage,
)
from aiki_sdk import PayloadError
from tests.contract.storage_cases import NOW, add, create, row, settle

ALL = RunFilter("default")
OK = Appended()


async def ids(storage: Storage, where: RunFilter = ALL) -> list[str]:
    page = await storage.runs(where, limit=100)
    assert page.cursor is None
    assert await storage.count(where) == len(page.runs)
    return [run.run_id for run in page.runs]


# --- Cancellation and bad values ------------------------------------------------------------------


async def test_a_caller_that_is_cancelled_before_it_begins_writes_nothing(
    storage: Storage,
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.append([create("run_1")])
    assert scope.cancelled_caught
    assert await storage.run("run_1") is None


async def test_a_caller_that_is_cancelled_while_it_waits_learns_what_became_of_it(
    storage: Storage,
) -> None:
    results: list[object] = []
    scope = trio.CancelScope()

    async def write() -> None:
        with scope:
            results.extend(await storage.append([create("run_1")]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        scope.cancel()
    written = await storage.run("run_1") is not None
    assert written == (results == [OK])


async def test_a_value_that_cannot_be_stored_is_refused_before_anything_is_written(
    storage: Storage,
) -> None:
    bad = Change("run_1", 2, (Entry(2, NOW, TaskSucceeded(Call("t"), 1, float("inf"))),))
    with pytest.raises(PayloadError):
        await storage.append([create("run_1"), bad])
    assert await storage.run("run_1") is None


@pytest.mark.parametrize(
    "wrong",
    [
        attrs.evolve(create("run_1"), first_seq=2),
        attrs.evolve(create("run_1"), projection=None),
        attrs.evolve(create("run_1"), projection=row("run_2")),
        attrs.evolve(add("run_1", 2), first_seq=3),
        attrs.evolve(add("run_1", 2), first_seq=0),
        attrs.evolve(add("run_1", 2), supersedes="run_0"),
        attrs.evolve(settle("run_1", 2), projection=row("run_1")),
        attrs.evolve(create("run_1"), entries=()),
    ],
)
async def test_a_change_that_breaks_the_port_is_a_bug(storage: Storage, wrong: Change) -> None:
    with pytest.raises(AssertionError, match="run_1"):
        await storage.append([wrong])


async def test_what_is_returned_is_not_shared_with_the_storage(storage: Storage) -> None:
    payload = {"items": [1]}
    body = TaskSucceeded(Call("t"), 1, payload)  # type: ignore[arg-type]
    await storage.append([create("run_1"), Change("run_1", 2, (Entry(2, NOW, body),))])
    payload["items"].append(2)
    (entry,) = await storage.journal("run_1", after=1)
    assert entry.body == TaskSucceeded(Call("t"), 1, {"items": [1]})
