"""How changes are put into transactions: shared by those that wait, spread over writers."""

from __future__ import annotations

import subprocess
import sys

import attrs
import trio
from hypothesis import given, strategies as st

from aiki_actors.storage import Change, RunFilter, SeqConflict
from aiki_actors.storage._changes import encode_change
from aiki_actors.storage.postgres import PostgresStorage, open_postgres
from aiki_actors.storage.postgres._split import split
from tests.contract.storage_cases import add, create, notice, settle
from tests.postgres.cases import OK, PATIENT


async def append_at_once(storage: PostgresStorage, count: int) -> int:
    """Append from so many tasks at the same time; return how many transactions that took."""
    before = sum(writer.commits for writer in storage._writers)
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(storage.append, [create(f"run_{number:03}")])
    assert await storage.count(RunFilter("default")) == count
    return sum(writer.commits for writer in storage._writers) - before


async def test_appends_that_wait_together_share_transactions(url: str) -> None:
    async with open_postgres(url, PATIENT) as storage:
        # The first goes alone, for nothing else waits yet.
        assert await append_at_once(storage, 100) <= 2


async def test_a_shared_transaction_is_bounded(url: str) -> None:
    async with open_postgres(url, attrs.evolve(PATIENT, batch_changes_max=10)) as storage:
        assert await append_at_once(storage, 25) >= 3


async def test_a_single_append_may_be_larger_than_the_bound(url: str) -> None:
    async with open_postgres(url, attrs.evolve(PATIENT, batch_bytes_max=1)) as storage:
        assert await storage.append([create("run_1"), add("run_1", 2)]) == [OK, OK]


async def test_sharing_a_transaction_changes_nothing_for_any_append(url: str) -> None:
    """A refusal, and what follows it, is the affair of one append only."""
    async with open_postgres(url, PATIENT) as storage:
        await storage.append([create("run_1"), add("run_1", 2)])
        results: dict[str, object] = {}

        async def write(name: str, *changes: Change) -> None:
            results[name] = await storage.append(changes)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "first", create("run_0"))
            await trio.lowlevel.checkpoint()
            nursery.start_soon(write, "stale", add("run_1", 2), add("run_1", 3))
            await trio.lowlevel.checkpoint()
            nursery.start_soon(write, "fresh", create("run_2"), add("run_1", 3))
        assert results == {
            "first": [OK],
            "stale": [SeqConflict("run_1", 2), SeqConflict("run_1", 3)],
            "fresh": [OK, OK],
        }


names = st.sampled_from([f"run_{number}" for number in range(6)])
references = st.sampled_from([None, "x", "y"])
changes = st.one_of(
    st.builds(lambda name, reference: create(name, reference_id=reference), names, references),
    st.builds(lambda name, old: create(name, reference_id="x", supersedes=old), names, names),
    st.builds(add, names, st.just(2)),
    st.builds(lambda name, other: settle(name, 2, f"{other}:1:0"), names, names),
    st.builds(
        lambda name, other: attrs.evolve(add(name, 2), notices=(notice(name, 1, 0, other),)),
        names,
        names,
    ),
)


@given(st.lists(changes, max_size=12), st.integers(2, 4))
def test_changes_that_touch_each_other_go_to_one_writer_in_their_order(
    batch: list[Change], writers: int
) -> None:
    parts = split([encode_change(change) for change in batch], writers)
    assert len(parts) == writers
    assert sorted(index for part in parts for index in part) == list(range(len(batch)))
    assert all(part == sorted(part) for part in parts)
    owner = {index: number for number, part in enumerate(parts) for index in part}
    for one, first in enumerate(batch):
        for two, second in enumerate(batch):
            if _touch(first, second):
                assert owner[one] == owner[two], (first, second)


def _touch(first: Change, second: Change) -> bool:
    if first.run_id in (second.run_id, second.supersedes):
        return True
    taken = [
        one.projection.reference_id if one.create and one.projection is not None else None
        for one in (first, second)
    ]
    if taken[0] is not None and taken[0] == taken[1]:
        return True
    return any(owed.id in second.settled for owed in first.notices)


def test_without_the_extra_the_import_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['asyncpg'] = None\n"
        "import aiki_trio, trio\n"
        "from aiki_actors.storage import PostgresSettings\n"
        "try: import aiki_actors.storage.postgres\n"
        "except ImportError as error: print(error)\n"
        "trio.run(aiki_trio.migrate, 'postgresql://h/d')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "pip install 'aiki-trio[postgres]'" in done.stdout, done
    assert "InvalidRequest: PostgreSQL needs the extra" in done.stderr
