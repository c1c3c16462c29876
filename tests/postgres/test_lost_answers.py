"""A write whose answer was lost: what became of it is found out, and it counts exactly once."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import attrs
import pytest
import trio

from aiki_actors.storage import RunFilter, SeqConflict
from aiki_actors.storage.postgres import PostgresStorage, open_postgres
from aiki_sdk import StorageUnavailable, UnknownOutcome
from tests.contract.storage_cases import add, at, create
from tests.postgres.cases import IMPATIENT, OK, PATIENT, ask, entries_of, warm_up
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy, open_proxy


@pytest.fixture
async def proxy(shared: PostgresServer) -> AsyncGenerator[Proxy, None]:
    async with open_proxy(shared.port) as opened:
        yield opened


def through(proxy: Proxy, url: str) -> str:
    """Return the URL of the same database by way of the proxy."""
    head, _, database = url.rpartition("/")
    return f"{head.rpartition(':')[0]}:{proxy.port}/{database}"


@pytest.fixture
async def storage(proxy: Proxy, url: str) -> AsyncGenerator[PostgresStorage, None]:
    """A storage behind the proxy, with every statement prepared."""
    async with open_postgres(through(proxy, url), PATIENT) as opened:
        await warm_up(opened)
        yield opened


async def test_a_commit_whose_reply_is_lost_is_found_committed(
    storage: PostgresStorage, proxy: Proxy
) -> None:
    proxy.lose_reply = True
    assert await storage.append([create("run_1"), add("run_1", 2)]) == [OK, OK]
    assert proxy.lost == 1
    assert await entries_of(storage, "run_1") == 2
    assert await storage.append([add("run_1", 3)]) == [OK]


async def test_a_request_that_never_arrived_is_sent_again(
    storage: PostgresStorage, proxy: Proxy
) -> None:
    proxy.lose_request = True
    assert await storage.append([create("run_1"), add("run_1", 2)]) == [OK, OK]
    assert proxy.lost == 1
    assert await entries_of(storage, "run_1") == 2


async def test_a_request_that_arrives_late_is_shut_out(
    storage: PostgresStorage, proxy: Proxy, shared: PostgresServer, url: str
) -> None:
    """The run exists once already; its old request must not even try."""
    proxy.delay_request = True
    assert await storage.append([create("run_1", labels={"k": "v"})]) == [OK]
    assert proxy.lost == 1
    before = await ask(shared, url, "SELECT sum(batch) FROM aiki.writers")
    await proxy.deliver()
    assert await ask(shared, url, "SELECT sum(batch) FROM aiki.writers") == before
    assert await entries_of(storage, "run_1") == 1
    assert "has been replaced" in shared.log()


async def test_refusals_are_known_although_the_reply_is_lost(
    storage: PostgresStorage, proxy: Proxy
) -> None:
    await storage.append([create("run_1")])
    # A batch that supersedes goes to `append_each` at once: its reply is the one that is lost.
    proxy.lose_reply = True
    batch = [create("run_2", supersedes="run_warm"), add("run_1", 7), add("run_1", 8)]
    refused = [SeqConflict("run_1", 7), SeqConflict("run_1", 8)]
    assert await storage.append(batch) == [OK, *refused]
    assert proxy.lost == 1
    assert await storage.count(RunFilter("default")) == 3


async def test_a_deletion_whose_reply_is_lost_tells_how_many(
    storage: PostgresStorage, proxy: Proxy
) -> None:
    await storage.append([create(f"run_{n}", ended_at=at(n)) for n in range(5)])
    await storage.delete_ended(before=at(1), limit=9)
    proxy.lose_reply = True
    assert await storage.delete_ended(before=at(3), limit=9) == 2
    assert proxy.lost == 1


async def test_reads_are_asked_again(storage: PostgresStorage, proxy: Proxy) -> None:
    await storage.append([create("run_1")])
    await storage.run("run_1")
    proxy.lose_reply = True
    assert await storage.run("run_1") is not None
    assert proxy.lost == 1


async def test_an_outcome_is_unknown_only_if_nobody_can_be_asked(proxy: Proxy, url: str) -> None:
    async with open_postgres(through(proxy, url), IMPATIENT) as storage:
        await warm_up(storage)
        proxy.lose_reply = proxy.refusing = True
        with pytest.raises(UnknownOutcome, match="read back"):
            await storage.append([create("run_1")])
        with pytest.raises(StorageUnavailable) as refused:
            await storage.append([create("run_2")])
        assert refused.value.retryable
        proxy.refusing = False
        # It was written; and what was refused was not.
        assert await entries_of(storage, "run_1") == 1
        assert await storage.append([create("run_1"), create("run_2")]) == [
            SeqConflict("run_1", 1),
            OK,
        ]


async def test_a_server_that_says_nothing_is_given_up(proxy: Proxy, url: str) -> None:
    async with open_postgres(through(proxy, url), IMPATIENT) as storage:
        await warm_up(storage)
        await storage.run("run_warm")
        proxy.silent = True
        with pytest.raises(UnknownOutcome):
            await storage.append([create("run_1")])
        with pytest.raises(StorageUnavailable):
            await storage.run("run_1")
        proxy.silent = False
        assert await storage.append([create("run_2")]) == [OK]
        assert await entries_of(storage, "run_2") == 1


async def test_a_cancelled_caller_still_learns_what_became_of_its_write(
    storage: PostgresStorage, proxy: Proxy
) -> None:
    """The reply is lost and the caller cancelled, at the same time."""
    results: list[object] = []
    scope = trio.CancelScope()

    async def write() -> None:
        with scope:
            results.extend(await storage.append([create("run_1")]))

    proxy.lose_reply = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        scope.cancel()
    assert results == [OK]
    assert await entries_of(storage, "run_1") == 1


async def test_tiny_deadlines_never_leave_a_write_in_doubt(url: str) -> None:
    """What a cancelled caller is told is true, for 300 writes cut at all sorts of moments."""
    async with open_postgres(url, attrs.evolve(PATIENT, writers=3)) as storage:
        await storage.append([create(f"run_{n}") for n in range(3)])
        seqs = [1, 1, 1]
        # The deadlines fit the machine: the last of a round is several times what a write takes.
        began = trio.current_time()
        for number in range(3):
            assert await storage.append([add(f"run_{number}", 2)]) == [OK]
            seqs[number] = 2
        step_s = (trio.current_time() - began) / 30
        cut = 0
        for turn in range(300):
            number = turn % 3
            told: list[object] = []
            with trio.move_on_after(turn % 40 * step_s) as scope:
                told.extend(await storage.append([add(f"run_{number}", seqs[number] + 1)]))
            cut += scope.cancel_called
            seqs[number] += told == [OK]
            assert told in ([OK], [])
        assert 0 < cut < 300
        assert [await entries_of(storage, f"run_{n}") for n in range(3)] == seqs
