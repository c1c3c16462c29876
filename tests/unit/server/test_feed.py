"""The feed: every reader sees all that passes its filter, once, also when it comes back."""

from __future__ import annotations

import weakref
from datetime import UTC, datetime

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given, strategies as st

from aiki_actors.server import Hub, SubscriberTooSlow
from aiki_actors.server._feed import (
    HEAVY,
    IDLE_S,
    KEPT,
    KEPT_WEIGHT,
    Feed,
    FeedFilter,
    weight_of,
)
from aiki_sdk import JsonValue, Unavailable
from aiki_sdk.protocol import Outcome, RunStatus, Update

AT = datetime(2026, 1, 1, tzinfo=UTC)
ALL = FeedFilter("ns")


def update(run_id: str, seq: int, workflow: str = "greet") -> Update:
    return Update(
        run_id=run_id,
        seq=seq,
        at=AT,
        kind="task-succeeded",
        status=RunStatus.RUNNING,
        workflow=workflow,
    )


def made() -> tuple[Hub[Outcome], Feed]:
    hub: Hub[Outcome] = Hub()
    return hub, Feed(hub, "boot")


async def test_a_filter_selects_namespace_runs_workflows_and_statuses() -> None:
    hub, feed = made()
    narrow = feed.reader(
        FeedFilter("ns", frozenset("a"), frozenset(["greet"]), frozenset([RunStatus.RUNNING])), 10
    )
    hub.publish("a", "ns", [update("a", 1)])
    hub.publish("a", "other", [update("a", 2)])
    hub.publish("b", "ns", [update("b", 1)])
    hub.publish("a", "ns", [update("a", 3, "wait"), update("a", 4)])

    assert [one.update.seq for one in await narrow.next_batch()] == [1, 4]


@given(st.lists(st.integers(1, 30), max_size=12), st.integers(1, 7))
def test_a_reader_that_reconnects_by_position_misses_and_repeats_nothing(
    bursts: list[int], limit: int
) -> None:
    """Between its visits things happen; each visit takes up to `limit` and breaks off."""

    async def check() -> None:
        hub, feed = made()
        feed.reader(ALL, 1).close()
        position, seen, seq = feed.position(), list[int](), 0
        for burst in [*bursts, 0]:
            for _ in range(burst):
                seq += 1
                hub.publish("a", "ns", [update("a", seq)])
            reader = feed.reader(ALL, 2)
            assert feed.rewind(reader, position)
            if not reader.up_to_date:
                batch = await reader.next_batch(limit)
                seen += [one.update.seq for one in batch]
                position = batch[-1].position
            reader.close()
        reader = feed.reader(ALL, 2)
        assert feed.rewind(reader, position)
        while not reader.up_to_date:
            seen += [one.update.seq for one in await reader.next_batch()]
        assert seen == list(range(1, seq + 1))

    trio.run(check)


async def test_a_reader_that_falls_behind_is_cut_off_and_told_its_cursors() -> None:
    hub, feed = made()
    reader = feed.reader(ALL, 2)
    hub.publish("a", "ns", [update("a", 1)])
    for one in await reader.next_batch():
        reader.note(one.update)
    hub.publish("a", "ns", [update("a", seq) for seq in (2, 3, 4)])

    with pytest.raises(SubscriberTooSlow) as caught:
        await reader.next_batch()
    assert caught.value.last_seqs == {"a": 1}


async def test_what_is_kept_and_what_waits_is_bounded_by_weight_too() -> None:
    hub, feed = made()
    reader = feed.reader(ALL, 1_000)
    heavy = evolve(update("a", 1), body={"output": "x" * (KEPT_WEIGHT // 4)})
    for seq in range(1, 8):
        hub.publish("a", "ns", [evolve(heavy, seq=seq)])

    with pytest.raises(SubscriberTooSlow):
        await reader.next_batch()
    late = feed.reader(ALL, 1_000)
    assert not feed.rewind(late, "boot-3")
    assert feed.rewind(late, "boot-4")
    assert [one.update.seq for one in await late.next_batch()] == [5, 6, 7]


def test_weighing_takes_no_longer_for_what_is_larger() -> None:
    row: list[JsonValue] = [0] * 1_000
    many: list[JsonValue] = [row] * 1_000
    assert weight_of(evolve(update("a", 1), body={"output": many})) > HEAVY
    assert weight_of(update("a", 1)) < 1_000


async def test_positions_that_lead_nowhere_are_refused() -> None:
    hub, feed = made()
    reader = feed.reader(ALL, 2)
    for seq in range(1, KEPT + 2):
        hub.publish("a", "ns", [update("a", seq)])
    for position in (
        "",
        "boot",
        "other-1",
        "boot-0",
        f"boot-{KEPT + 2}",
        "boot-x",
        "boot-" + "9" * 30,
    ):
        assert not feed.rewind(reader, position), position
    assert feed.rewind(reader, "boot-1")


async def test_a_feed_that_nobody_reads_leaves_the_hub(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub, feed = made()
    feed.reader(ALL, 2).close()
    before = feed.position()
    await trio.sleep(IDLE_S - 1)
    hub.publish("a", "ns", [update("a", 1)])
    assert hub.streamed("a")
    await trio.sleep(2)
    hub.publish("a", "ns", [update("a", 2)])
    assert not hub.streamed("a")
    reader = feed.reader(ALL, 2)
    assert not feed.rewind(reader, before)
    assert hub.streamed("a")


async def test_a_stop_ends_readers_behind_what_they_have() -> None:
    hub, feed = made()
    reader = feed.reader(ALL, 2)
    hub.publish("a", "ns", [update("a", 1)])
    hub.stop()

    assert [one.update.seq for one in await reader.next_batch()] == [1]
    with pytest.raises(Unavailable):
        await reader.next_batch()
    with pytest.raises(Unavailable):
        feed.reader(ALL, 2)


async def test_readers_of_the_same_are_given_the_same_object() -> None:
    hub, feed = made()
    readers = [feed.reader(FeedFilter("ns"), 10) for _ in range(3)]
    other = feed.reader(FeedFilter("ns", frozenset("b")), 10)
    hub.publish("a", "ns", [update("a", 1)])

    first, *rest = [(await reader.next_batch())[0] for reader in readers]
    assert all(one is first for one in rest)
    assert first.position == "boot-1"
    assert other.up_to_date


async def test_what_nobody_has_left_to_read_is_not_kept_by_a_track() -> None:
    """One fast reader and one that never reads, with more than the feed itself keeps."""
    hub, feed = made()
    fast, stuck = feed.reader(ALL, 100), feed.reader(ALL, 100)
    published: list[weakref.ref[Update]] = []

    def publish(seq: int) -> None:
        one = update("a", seq)
        published.append(weakref.ref(one))
        hub.publish("a", "ns", [one])

    for seq in range(1, KEPT + 500):
        publish(seq)
        await fast.next_batch()

    assert published[0]() is None
    assert sum(one() is not None for one in published) == KEPT
    assert fast.up_to_date
    with pytest.raises(SubscriberTooSlow):
        await stuck.next_batch()


async def test_a_long_backlog_is_let_go_of_without_overflowing_the_stack() -> None:
    hub, feed = made()
    reader = feed.reader(ALL, 10**6)
    hub.publish("a", "ns", [update("a", seq) for seq in range(1, 50_001)])
    assert reader.waiting == 50_000
    reader.close()
    assert reader.waiting == 0


async def test_what_comes_soon_after_a_batch_comes_together_and_after_a_pause_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub, feed = made()
    reader = feed.reader(ALL, 1_000)
    given: list[tuple[float, list[int]]] = []

    async def read() -> None:
        while True:
            batch = await reader.next_batch(gather_s=1.0)
            given.append((trio.current_time() - began, [one.update.seq for one in batch]))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(5)
        for seq in (1, 2, 3):
            hub.publish("a", "ns", [update("a", seq)])
            await trio.sleep(0.4)
        await trio.sleep(5)
        hub.publish("a", "ns", [update("a", 4)])
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert [seqs for _, seqs in given] == [[1], [2, 3], [4]]
    assert [at for at, _ in given] == pytest.approx([5.0, 6.0, 11.2])


@pytest.mark.parametrize("buffer", [1, 20, 60, 100, 101, 150, 200, 1_000])
async def test_a_reader_that_gathers_is_not_cut_off_for_it(
    autojump_clock: trio.testing.MockClock, buffer: int
) -> None:
    hub, feed = made()
    reader = feed.reader(ALL, buffer)
    seen: list[int] = []

    async def read() -> None:
        while len(seen) < 5_000:
            seen.extend(one.update.seq for one in await reader.next_batch(gather_s=3600.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for seq in range(1, 5_001):
            hub.publish("a", "ns", [update("a", seq)])
            await trio.testing.wait_all_tasks_blocked()
    assert seen == list(range(1, 5_001))


async def test_a_reader_that_gathers_heavy_updates_is_not_cut_off_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub, feed = made()
    reader = feed.reader(ALL, 1_000)
    seen: list[int] = []
    body: dict[str, JsonValue] = {"output": "x" * (2 * HEAVY)}

    async def read() -> None:
        while len(seen) < 60:
            seen.extend(one.update.seq for one in await reader.next_batch(gather_s=3600.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for seq in range(1, 61):
            hub.publish("a", "ns", [evolve(update("a", seq), body=body)])
            await trio.testing.wait_all_tasks_blocked()
    assert seen == list(range(1, 61))


async def test_a_gathering_reader_hears_of_the_stop_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hub, feed = made()
    reader = feed.reader(ALL, 200)
    hub.publish("a", "ns", [update("a", 1)])
    await reader.next_batch(gather_s=3600.0)
    hub.publish("a", "ns", [update("a", 2)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1)
        began = trio.current_time()

        async def read() -> None:
            assert [one.update.seq for one in await reader.next_batch(gather_s=3600.0)] == [2]
            with pytest.raises(Unavailable):
                await reader.next_batch(gather_s=3600.0)
            assert trio.current_time() - began < 2

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        hub.stop()
