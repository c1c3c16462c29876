"""What every storage adapter promises, whatever it is made of."""

from __future__ import annotations

import random
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import trio

from aiki_actors.engine import Call, Entry, Micros, RunQueued, TaskSucceeded
from aiki_actors.storage import (
    Appended,
    Change,
    ClaimedRun,
    DueRun,
    ReadyRun,
    ReferenceTaken,
    RunFilter,
    SeqConflict,
    Storage,
)
from aiki_sdk import InvalidRequest
from aiki_sdk.protocol import Priority, RunStatus
from tests.contract.storage_cases import NOW, add, at, create, notice, row, settle

ALL = RunFilter("default")
OK = Appended()


async def ids(storage: Storage, where: RunFilter = ALL) -> list[str]:
    page = await storage.runs(where, limit=100)
    assert page.cursor is None
    assert await storage.count(where) == len(page.runs)
    return [run.run_id for run in page.runs]


# --- Writing --------------------------------------------------------------------------------------


async def test_what_was_appended_is_read_back(storage: Storage) -> None:
    change = create("run_1", RunQueued("start"), labels={"team": "a"}, ready_at=NOW, due_at=at(1))
    assert await storage.append([change]) == [OK]
    assert await storage.journal("run_1") == list(change.entries)
    assert await storage.run("run_1") == change.projection


async def test_nothing_is_known_of_a_run_that_does_not_exist(storage: Storage) -> None:
    assert await storage.journal("run_1") == []
    assert await storage.run("run_1") is None
    assert await storage.find("default", "order", "ref") is None
    assert await ids(storage) == []


async def test_appending_nothing_is_nothing(storage: Storage) -> None:
    assert await storage.append([]) == []


async def test_a_journal_is_read_in_parts(storage: Storage) -> None:
    await storage.append([create("run_1"), add("run_1", 2, entries=5), create("run_2")])
    whole = await storage.journal("run_1")
    assert [entry.seq for entry in whole] == [1, 2, 3, 4, 5, 6]
    assert await storage.journal("run_1", after=2) == whole[2:]
    assert await storage.journal("run_1", after=2, limit=2) == whole[2:4]
    assert await storage.journal("run_1", after=6) == []


async def test_changes_of_one_run_in_one_batch_are_applied_in_order(storage: Storage) -> None:
    batch = [
        create("run_1"),
        add("run_1", 2, status=RunStatus.RUNNING, worker_id="w", epoch=1),
        add("run_1", 3, status=RunStatus.COMPLETED, ended_at=at(3), epoch=1),
    ]
    assert await storage.append(batch) == [OK, OK, OK]
    assert await storage.run("run_1") == batch[-1].projection
    assert await storage.claimed(limit=10) == []


async def test_a_change_without_a_row_leaves_the_row_alone(storage: Storage) -> None:
    first = create("run_1", due_at=at(5))
    await storage.append([first])
    await storage.append([add("run_1", 2)])
    assert await storage.run("run_1") == first.projection


async def test_a_batch_of_any_size_is_written(storage: Storage) -> None:
    names = [f"run_{number:04d}" for number in range(333)]
    assert await storage.append([create(name) for name in names]) == [OK] * 333
    assert await storage.append([add(name, 2) for name in names]) == [OK] * 333
    assert await storage.count(ALL) == 333
    assert len(await storage.journal("run_0332")) == 2
    assert await storage.append([add("run_0000", 3, entries=1000)]) == [OK]
    assert len(await storage.journal("run_0000")) == 1002


async def test_the_order_of_text_is_that_of_its_code_points(storage: Storage) -> None:
    names = ["run_Z", "run_a", "run_é", "run_ﬀ", "run_😀"]
    await storage.append([create(name, worker_id="w", epoch=1) for name in reversed(names)])
    assert [run.run_id for run in await storage.claimed(limit=9)] == names
    assert await ids(storage) == names[::-1]


# --- The fence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", [1, 2, 4, 9])
async def test_a_change_that_does_not_continue_the_journal_is_refused(
    storage: Storage, seq: int
) -> None:
    await storage.append([create("run_1"), add("run_1", 2)])
    before = await storage.run("run_1")
    assert await storage.append([add("run_1", seq, due_at=at(7))]) == [SeqConflict("run_1", seq)]
    assert len(await storage.journal("run_1")) == 2
    assert await storage.run("run_1") == before


async def test_a_run_is_created_once(storage: Storage) -> None:
    await storage.append([create("run_1")])
    assert await storage.append([create("run_1", due_at=NOW)]) == [SeqConflict("run_1", 1)]
    assert await storage.run("run_1") == row("run_1")
    assert await storage.append([create("run_2"), create("run_2")]) == [OK, SeqConflict("run_2", 1)]


async def test_a_run_that_does_not_exist_is_not_continued(storage: Storage) -> None:
    batch = [add("run_1", 1), add("run_2", 2, due_at=NOW), add("run_3", 5)]
    refused = [SeqConflict("run_1", 1), SeqConflict("run_2", 2), SeqConflict("run_3", 5)]
    assert await storage.append(batch) == refused
    assert await ids(storage) == []
    assert await storage.journal("run_2") == []


async def test_one_refused_change_never_spoils_the_others(storage: Storage) -> None:
    await storage.append([create("run_1"), create("run_2", reference_id="ref")])
    batch = [
        add("run_2", 2, status=RunStatus.RUNNING, reference_id="ref"),
        add("run_1", 7, due_at=NOW),
        create("run_3", reference_id="ref", input_hash="ff"),
        create("run_4", reference_id="other"),
        create("run_1"),
    ]
    assert await storage.append(batch) == [
        OK,
        SeqConflict("run_1", 7),
        ReferenceTaken("run_2", "00"),
        OK,
        SeqConflict("run_1", 1),
    ]
    assert await ids(storage) == ["run_4", "run_2", "run_1"]
    assert [len(await storage.journal(f"run_{n}")) for n in (1, 2, 3, 4)] == [1, 2, 0, 1]


async def test_what_follows_a_refused_change_of_a_run_is_refused(storage: Storage) -> None:
    """Its owner decided upon entries that are not there, even where the seq would fit."""
    await storage.append([create("run_1"), add("run_1", 2)])
    batch = [add("run_1", 2), add("run_1", 3), create("run_2"), settle("run_1", 3)]
    assert await storage.append(batch) == [
        SeqConflict("run_1", 2),
        SeqConflict("run_1", 3),
        OK,
        SeqConflict("run_1", 3),
    ]
    assert len(await storage.journal("run_1")) == 2


async def test_a_gap_inside_a_batch_is_refused(storage: Storage) -> None:
    batch = [create("run_1"), add("run_1", 3), create("run_2")]
    assert await storage.append(batch) == [OK, SeqConflict("run_1", 3), OK]
    assert len(await storage.journal("run_1")) == 1


async def test_two_owners_of_a_run_never_both_write(storage: Storage) -> None:
    await storage.append([create("run_1")])
    results: list[object] = []

    async def own(name: str) -> None:
        for seq in range(2, 12):
            entry = Entry(seq, NOW, RunQueued(name))
            (result,) = await storage.append([Change("run_1", seq, (entry,))])
            results.append(result)
            if result != OK:
                return

    async with trio.open_nursery() as nursery:
        for name in ("one", "two", "three"):
            nursery.start_soon(own, name)
    entries = await storage.journal("run_1")
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert results.count(OK) == len(entries) - 1


# --- Reference ids --------------------------------------------------------------------------------


async def test_a_reference_id_names_one_run_of_a_workflow(storage: Storage) -> None:
    await storage.append([create("run_1", reference_id="ref", input_hash="aa")])
    batch = [
        create("run_2", reference_id="ref"),
        create("run_3", reference_id="ref", workflow="refund"),
        create("run_4", reference_id="ref", namespace="other"),
        create("run_5"),
        create("run_6"),
    ]
    assert await storage.append(batch) == [ReferenceTaken("run_1", "aa"), OK, OK, OK, OK]
    found = await storage.find("default", "order", "ref")
    assert found is not None
    assert found.run_id == "run_1"
    assert await storage.find("default", "order", "nope") is None


async def test_the_first_of_two_with_a_reference_id_in_one_batch_has_it(storage: Storage) -> None:
    batch = [create("run_1", reference_id="ref"), create("run_2", reference_id="ref")]
    assert await storage.append(batch) == [OK, ReferenceTaken("run_1", "00")]


async def test_a_superseded_run_gives_its_reference_id_up(storage: Storage) -> None:
    ended: dict[str, Any] = {
        "status": RunStatus.COMPLETED,
        "ended_at": at(2),
        "reference_id": "ref",
    }
    await storage.append([create("run_1", reference_id="ref"), add("run_1", 2, **ended)])
    again = create("run_2", reference_id="ref", supersedes="run_1", created_at=at(3))
    assert await storage.append([again]) == [OK]
    found = await storage.find("default", "order", "ref")
    assert found == again.projection
    by_reference = attrs.evolve(ALL, reference_id="ref")
    assert await ids(storage, by_reference) == ["run_2", "run_1"]
    # The old run may still change; it does not take its reference id back by that.
    retried = add("run_1", 3, status=RunStatus.QUEUED, reference_id="ref", ready_at=at(4))
    assert await storage.append([retried]) == [OK]
    assert await storage.find("default", "order", "ref") == again.projection


async def test_a_run_is_superseded_in_the_batch_in_which_it_ends(storage: Storage) -> None:
    await storage.append([create("run_1", reference_id="ref")])
    batch = [
        add("run_1", 2, status=RunStatus.FAILED, ended_at=NOW, reference_id="ref"),
        create("run_2", reference_id="ref", supersedes="run_1"),
        add("run_2", 2, status=RunStatus.FAILED, ended_at=NOW, reference_id="ref"),
        create("run_3", reference_id="ref", supersedes="run_2"),
        create("run_4", reference_id="ref", supersedes="run_2"),
    ]
    assert await storage.append(batch) == [OK, OK, OK, OK, ReferenceTaken("run_3", "00")]
    found = await storage.find("default", "order", "ref")
    assert found is not None
    assert found.run_id == "run_3"


async def test_a_refused_supersession_takes_nothing_away(storage: Storage) -> None:
    await storage.append([create("run_1", reference_id="a"), create("run_2", reference_id="b")])
    refused = create("run_3", reference_id="b", supersedes="run_1")
    assert await storage.append([refused]) == [ReferenceTaken("run_2", "00")]
    found = await storage.find("default", "order", "a")
    assert found is not None
    assert found.run_id == "run_1"


async def test_a_row_is_updated_without_losing_its_reference_id(storage: Storage) -> None:
    await storage.append([create("run_1", reference_id="ref")])
    await storage.append([add("run_1", 2, reference_id="ref", status=RunStatus.RUNNING)])
    taken = await storage.append([create("run_2", reference_id="ref")])
    assert taken == [ReferenceTaken("run_1", "00")]


# --- Notices --------------------------------------------------------------------------------------


async def test_notices_are_owed_until_they_are_settled(storage: Storage) -> None:
    owed = tuple(notice("run_1", 1, number, "run_2") for number in range(3))
    await storage.append([attrs.evolve(create("run_1"), notices=owed), create("run_2")])
    assert await storage.notices(limit=10) == list(owed)
    assert await storage.notices(limit=1) == [owed[0]]
    assert await storage.notices(limit=10, after=owed[0].id) == list(owed[1:])
    carried_out = attrs.evolve(add("run_2", 2), settled=(owed[0].id, owed[2].id))
    assert await storage.append([carried_out]) == [OK]
    assert await storage.notices(limit=10) == [owed[1]]
    assert await storage.append([settle("run_2", 3, owed[1].id, "unknown")]) == [OK]
    assert await storage.notices(limit=10) == []


async def test_a_notice_is_settled_in_the_batch_that_owes_it(storage: Storage) -> None:
    owed = notice("run_1", 1, 0, "run_2")
    batch = [attrs.evolve(create("run_1"), notices=(owed,)), create("run_2")]
    batch.append(settle("run_2", 2, owed.id))
    assert await storage.append(batch) == [OK, OK, OK]
    assert await storage.notices(limit=10) == []


async def test_a_refused_change_neither_owes_nor_settles(storage: Storage) -> None:
    owed = notice("run_1", 1, 0, "run_2")
    await storage.append([attrs.evolve(create("run_1"), notices=(owed,))])
    other = notice("run_1", 5, 0, "run_2")
    batch = [
        attrs.evolve(add("run_1", 5), notices=(other,)),
        settle("run_2", 4, owed.id),
        settle("run_1", 1, owed.id),
        settle("run_1", 3, owed.id),
    ]
    results = await storage.append(batch)
    assert all(isinstance(result, SeqConflict) for result in results)
    assert await storage.notices(limit=10) == [owed]


async def test_a_notice_to_a_run_that_is_gone_can_be_settled(storage: Storage) -> None:
    """Its last seq is 0, so the change is one with first_seq 1 and no entries."""
    owed = notice("run_1", 1, 0, "run_9")
    await storage.append([attrs.evolve(create("run_1"), notices=(owed,))])
    assert await storage.append([settle("run_9", 1, owed.id)]) == [OK]
    assert await storage.notices(limit=10) == []
    assert await storage.run("run_9") is None


# --- Listings -------------------------------------------------------------------------------------


async def _fill(storage: Storage) -> None:
    eu, us = {"region": "eu", "team": "a"}, {"region": "us"}
    await storage.append(
        [
            create("run_1", created_at=at(1), labels=eu),
            create("run_2", created_at=at(2), status=RunStatus.FAILED, labels=us, version="2"),
            create("run_3", created_at=at(2), workflow="refund", parent_id="run_1"),
            create("run_4", created_at=at(3), status=RunStatus.RUNNING, labels=eu),
            create("run_5", created_at=at(4), namespace="other", labels=eu, parent_id="run_1"),
            create("run_6", created_at=at(5), reference_id="ref", status=RunStatus.FAILED),
        ]
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (RunFilter("default"), "64321"),
        (RunFilter("other"), "5"),
        (RunFilter("nowhere"), ""),
        (RunFilter("default", status=(RunStatus.FAILED,)), "62"),
        (RunFilter("default", status=(RunStatus.RUNNING, RunStatus.FAILED)), "642"),
        (RunFilter("default", status=(RunStatus.FAILED, RunStatus.FAILED)), "62"),
        (RunFilter("default", status=()), ""),
        (RunFilter("default", workflow="order"), "6421"),
        (RunFilter("default", workflow="order", status=(RunStatus.QUEUED,)), "1"),
        (RunFilter("default", version="2"), "2"),
        (RunFilter("default", reference_id="ref"), "6"),
        (RunFilter("default", reference_id="ref", status=(RunStatus.QUEUED,)), ""),
        (RunFilter("default", parent_id="run_1"), "3"),
        (RunFilter("default", query="REF"), "63"),
        (RunFilter("default", query=" und\tRUN "), "3"),
        (RunFilter("default", query="run_4"), "4"),
        (RunFilter("default", query="order ref", status=(RunStatus.FAILED,)), "6"),
        (RunFilter("default", query="refund ref run_6"), ""),
        (RunFilter("default", query="100%_"), ""),
        (RunFilter("default", query="ÖRDER"), ""),
        (RunFilter("default", query="order", labels=(("region", "eu"),)), "41"),
        (RunFilter("default", query="  "), "64321"),
        (RunFilter("default", labels=(("region", "eu"),)), "41"),
        (RunFilter("default", labels=(("region", "eu"), ("team", "a"))), "41"),
        (RunFilter("default", labels=(("region", "us"), ("team", "a"))), ""),
        (RunFilter("default", labels=(("region", "eu"),), status=(RunStatus.RUNNING,)), "4"),
        (
            RunFilter(
                "default",
                labels=(("region", "eu"),),
                status=(RunStatus.RUNNING, RunStatus.QUEUED),
                workflow="order",
                version="1",
            ),
            "41",
        ),
        (RunFilter("default", parent_id="run_1", labels=(("region", "eu"),)), ""),
    ],
)
async def test_a_listing_has_what_its_filter_selects_newest_first(
    storage: Storage, where: RunFilter, expected: str
) -> None:
    await _fill(storage)
    assert await ids(storage, where) == [f"run_{digit}" for digit in expected]


async def test_a_listing_is_bounded_by_time_half_open(storage: Storage) -> None:
    await _fill(storage)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    two, three = (epoch + timedelta(microseconds=at(offset)) for offset in (2, 3))
    for where in (
        ALL,
        attrs.evolve(ALL, workflow="order"),
        attrs.evolve(ALL, labels=(("region", "us"),)),
    ):
        bounded = attrs.evolve(where, created_after=two, created_before=three)
        found = await ids(storage, bounded)
        assert found == [name for name in await ids(storage, where) if name in {"run_2", "run_3"}]
    assert await ids(storage, attrs.evolve(ALL, created_after=three)) == ["run_6", "run_4"]
    assert await ids(storage, attrs.evolve(ALL, created_before=two)) == ["run_1"]
    with pytest.raises(InvalidRequest, match="no time zone"):
        await storage.count(attrs.evolve(ALL, created_after=datetime(2026, 1, 1)))  # noqa: DTZ001


@pytest.mark.parametrize(
    "where",
    [
        ALL,
        RunFilter("default", workflow="order"),
        RunFilter("default", status=(RunStatus.QUEUED, RunStatus.FAILED)),
        RunFilter("default", labels=(("k", "v"),)),
    ],
)
@pytest.mark.parametrize("limit", [1, 3, 10, 11])
async def test_pages_follow_each_other_without_gap_or_repetition(
    storage: Storage, where: RunFilter, limit: int
) -> None:
    await storage.append(
        [
            create(
                f"run_{number}",
                created_at=at(number // 3),
                labels={"k": "v"},
                status=(RunStatus.QUEUED, RunStatus.FAILED)[number % 2],
            )
            for number in range(10)
        ]
    )
    found: list[str] = []
    page = await storage.runs(where, limit=limit)
    while True:
        found += [run.run_id for run in page.runs]
        if page.cursor is None:
            break
        # What is created meanwhile is newer, and not on the pages that follow.
        await storage.append([create(f"run_x{len(found)}", created_at=at(99), labels={"k": "v"})])
        page = await storage.runs(where, limit=limit, cursor=page.cursor)
        assert page.runs
    assert found == [f"run_{number}" for number in range(9, -1, -1)]


@pytest.mark.parametrize("cursor", ["", "nonsense", "WzFd", "é", "WzEsMl0", "bnVsbA"])
async def test_a_cursor_from_elsewhere_is_refused(storage: Storage, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a cursor"):
        await storage.runs(ALL, limit=1, cursor=cursor)


async def test_a_page_holds_at_least_one_run(storage: Storage) -> None:
    with pytest.raises(InvalidRequest, match="limit is 0"):
        await storage.runs(ALL, limit=0)
    for refused in (
        storage.ready(limit=0),
        storage.due(before=NOW, limit=0),
        storage.claimed(limit=-1),
        storage.notices(limit=0),
        storage.delete_ended(before=NOW, limit=0),
    ):
        with pytest.raises(InvalidRequest, match="ask for at least 1"):
            await refused


# --- Sweeps ---------------------------------------------------------------------------------------


async def test_ready_runs_come_by_priority_then_oldest_first(storage: Storage) -> None:
    await storage.append(
        [
            create("run_1", ready_at=at(2)),
            create("run_2", ready_at=at(1)),
            create("run_3", ready_at=at(9), priority=Priority.HIGH),
            create("run_4", ready_at=at(0), priority=Priority.LOW, workflow="refund", pool="gpu"),
            create("run_5"),
            create("run_6", ready_at=at(1), version="2", namespace="other"),
        ]
    )
    found = await storage.ready(limit=10)
    assert [run.run_id for run in found] == ["run_3", "run_2", "run_6", "run_1", "run_4"]
    assert found[-1] == ReadyRun(
        "run_4", "default", "refund", "1", "gpu", Priority.LOW, Micros(NOW)
    )
    assert [run.run_id for run in await storage.ready(limit=2)] == ["run_3", "run_2"]
    rest = await storage.ready(limit=2, exclude=["run_3", "run_6", "run_x"])
    assert [run.run_id for run in rest] == ["run_2", "run_1"]
    many = [f"run_x{number}" for number in range(40_000)]
    assert len(await storage.ready(limit=9, exclude=[*many, "run_1"])) == 4
    await storage.append([add("run_3", 2, priority=Priority.HIGH, worker_id="w", epoch=1)])
    assert [run.run_id for run in await storage.ready(limit=1)] == ["run_2"]


async def test_due_runs_come_in_order_of_time(storage: Storage) -> None:
    await storage.append(
        [
            create("run_1", due_at=at(3)),
            create("run_2", due_at=at(1)),
            create("run_3", due_at=at(3)),
            create("run_4", due_at=at(5)),
            create("run_5"),
        ]
    )
    found = await storage.due(before=at(5), limit=10)
    assert found == [DueRun("run_2", at(1)), DueRun("run_1", at(3)), DueRun("run_3", at(3))]
    assert await storage.due(before=at(5), limit=2) == found[:2]
    assert await storage.due(before=at(6), limit=9, after=found[1]) == [
        found[2],
        DueRun("run_4", at(5)),
    ]
    await storage.append([add("run_2", 2, due_at=at(9)), add("run_1", 2, epoch=1)])
    assert await storage.due(before=at(5), limit=10) == [found[2]]


async def test_claimed_runs_come_in_order_of_id(storage: Storage) -> None:
    batch = [create(f"run_{n}", worker_id=f"w{n}", epoch=n) for n in (3, 1, 2)]
    await storage.append([*batch, create("run_4", epoch=7)])
    found = await storage.claimed(limit=10)
    assert found == [ClaimedRun(f"run_{n}", f"w{n}", n) for n in (1, 2, 3)]
    assert await storage.claimed(limit=1) == found[:1]
    assert await storage.claimed(limit=10, after="run_1") == found[1:]
    await storage.append([add("run_2", 2, epoch=2)])
    assert await storage.claimed(limit=10) == [found[0], found[2]]


# --- Deleting -------------------------------------------------------------------------------------


async def test_runs_that_ended_long_ago_are_deleted_with_all_that_is_theirs(
    storage: Storage,
) -> None:
    done: dict[str, Any] = {"status": RunStatus.COMPLETED}
    labels = {"k": "v", "l": "w"}
    owed = notice("run_1", 1, 0, "run_9")
    await storage.append(
        [
            attrs.evolve(
                create("run_1", ended_at=at(1), reference_id="ref", labels=labels, **done),
                notices=(owed,),
            ),
            create("run_2", ended_at=at(2), labels=labels, **done),
            create("run_3", ended_at=at(3), labels=labels, **done),
            create("run_4", labels=labels),
            create("run_5", ended_at=at(0), namespace="other", **done),
        ]
    )
    assert await storage.delete_ended(before=at(3), limit=10, namespace="default") == 2
    assert await storage.delete_ended(before=at(3), limit=10, namespace="default") == 0
    assert await ids(storage) == ["run_4", "run_3"]
    assert await ids(storage, attrs.evolve(ALL, labels=(("k", "v"),))) == ["run_4", "run_3"]
    assert await storage.journal("run_1") == []
    assert await storage.run("run_2") is None
    assert await storage.find("default", "order", "ref") is None
    assert await storage.notices(limit=10) == [owed], "a notice outlives the run that caused it"
    assert await storage.append([create("run_6", reference_id="ref")]) == [OK]
    assert await storage.delete_ended(before=at(9), limit=10) == 2
    assert await ids(storage) == ["run_6", "run_4"]


async def test_deletion_is_bounded_and_takes_the_oldest_first(storage: Storage) -> None:
    await storage.append([create(f"run_{n}", ended_at=at(9 - n)) for n in range(5)])
    assert await storage.delete_ended(before=at(99), limit=2) == 2
    assert await ids(storage) == ["run_2", "run_1", "run_0"]


async def test_deletion_can_be_of_one_workflow_or_of_all_but_some(storage: Storage) -> None:
    names = ("audit", "order", "refund", "order", "audit", "sync")
    await storage.append(
        [
            create(f"run_{n}", ended_at=at(9 - n), workflow=name, namespace=namespace)
            for n, name in enumerate(names)
            for namespace in ("other" if n == 3 else "default",)
        ]
    )
    late = at(99)
    assert await storage.delete_ended(before=at(5), limit=9, workflow="audit") == 0
    assert await storage.delete_ended(before=at(6), limit=9, workflow="audit") == 1
    assert await storage.delete_ended(before=late, limit=9, workflow="order", namespace="x") == 0
    assert await storage.delete_ended(before=late, limit=1, workflow="order") == 1
    assert await storage.run("run_3") is None, "the oldest of that workflow"
    keep = ("audit", "sync", "unknown")
    assert await storage.delete_ended(before=late, limit=1, excluding=keep) == 1
    assert await ids(storage) == ["run_5", "run_1", "run_0"]
    assert await storage.delete_ended(before=late, limit=9, excluding=keep) == 1
    assert await storage.delete_ended(before=late, limit=9, workflow="sync", excluding=keep) == 0
    assert await ids(storage) == ["run_5", "run_0"]


async def test_a_deleted_run_can_be_created_again(storage: Storage) -> None:
    await storage.append([create("run_1", ended_at=NOW, labels={"k": "v"})])
    await storage.delete_ended(before=at(1), limit=1)
    assert await storage.append([add("run_1", 2)]) == [SeqConflict("run_1", 2)]
    assert await storage.append([create("run_1", labels={"k": "v"})]) == [OK]


async def test_the_size_grows_with_what_is_kept(storage: Storage) -> None:
    empty = await storage.size_bytes()
    # Chance, for a database may compress what repeats itself.
    text = b64encode(random.Random(1).randbytes(150_000)).decode()
    big = TaskSucceeded(Call("task:a:b"), 1, text)
    await storage.append([create("run_1"), Change("run_1", 2, (Entry(2, NOW, big),))])
    assert await storage.size_bytes() >= empty + 200_000
