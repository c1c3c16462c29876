"""The hub: streams, cut-offs, and waiting for ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from aiki_actors.kernel import ChildSpec, SupervisorSpec, open_system
from aiki_actors.server._hub import Hub, HubActor
from aiki_actors.server._subscription import SubscriberTooSlow, Subscription, UpdateFilter
from aiki_sdk import ResultTimeout, Unavailable
from aiki_sdk.protocol import RunStatus, Update

AT = datetime(2026, 1, 1, tzinfo=UTC)


def update(
    run_id: str, seq: int, status: RunStatus = RunStatus.RUNNING, workflow: str = "wf"
) -> Update:
    return Update(run_id=run_id, seq=seq, at=AT, kind="x", status=status, workflow=workflow)


def publish(hub: Hub[str], run_id: str, *seqs: int, outcome: str | None = None) -> None:
    hub.publish(run_id, "default", [update(run_id, seq) for seq in seqs], outcome)


async def read(subscription: Subscription) -> list[tuple[str, int]]:
    """Read what is there."""
    return [(one.run_id, one.seq) for one in await subscription.next_batch(10_000)]


# --- interest ---


def test_nobody_is_interested_until_somebody_listens() -> None:
    hub = Hub[str]()
    assert not hub.interested("r")
    with hub.subscribe("r"):
        assert hub.interested("r")
        assert not hub.interested("other")
    assert not hub.interested("r")
    with hub.subscribe():
        assert hub.interested("any")
    assert not hub.interested("any")


def test_a_waiter_is_interested_but_wants_no_updates() -> None:
    hub = Hub[str]()
    with hub.waiter("r"):
        assert hub.interested("r")
        assert not hub.streamed("r")
    assert not hub.interested("r")


def test_nothing_is_kept_of_runs_that_nobody_watches() -> None:
    hub = Hub[str]()
    for number in range(100):
        with hub.subscribe(f"r{number}"), hub.waiter(f"r{number}"), hub.waiter(f"r{number}"):
            publish(hub, f"r{number}", 1)
    assert not hub._by_run
    assert not hub._waiters
    assert not hub._wide


# --- streams ---


async def test_a_subscriber_gets_what_is_published_after_it_subscribed() -> None:
    hub = Hub[str]()
    publish(hub, "r", 1)
    with hub.subscribe("r") as subscription:
        publish(hub, "r", 2, 3)
        publish(hub, "other", 1)
        assert [(await subscription.next()).seq for _ in range(2)] == [2, 3]
        assert not len(subscription)


async def test_a_waiting_reader_is_woken() -> None:
    hub = Hub[str]()
    got: list[int] = []

    async def reader() -> None:
        with hub.subscribe("r") as subscription:
            async for one in subscription:
                got.append(one.seq)
                if one.seq == 3:
                    return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        publish(hub, "r", 1, 2)
        await wait_all_tasks_blocked()
        publish(hub, "r", 3)
    assert got == [1, 2, 3]


async def test_filters_select_by_namespace_workflow_and_status() -> None:
    hub = Hub[str]()
    where = UpdateFilter("shop", "wf", (RunStatus.FAILED,))
    with hub.subscribe(where=where) as subscription:
        for namespace in ("shop", "other"):
            for workflow in ("wf", "wf2"):
                for status in (RunStatus.FAILED, RunStatus.RUNNING):
                    name = f"{namespace}-{workflow}-{status}"
                    hub.publish(name, namespace, [update(name, 1, status, workflow)])
        assert await read(subscription) == [("shop-wf-failed", 1)]


async def test_a_slow_subscriber_is_cut_off_and_told_where_to_resume() -> None:
    hub = Hub[str]()
    with hub.subscribe(buffer=3) as slow, hub.subscribe(buffer=10) as fast:
        publish(hub, "a", 1, 2)
        assert await read(slow) == [("a", 1), ("a", 2)]
        publish(hub, "b", 1, 2, 3)
        publish(hub, "a", 3)
        assert not len(slow), "what is cut off holds no memory"
        for _ in range(2):
            with pytest.raises(SubscriberTooSlow) as caught:
                await slow.next()
            assert caught.value.code == "subscriber-too-slow"
            assert caught.value.last_seqs == {"a": 2}
        assert len(await read(fast)) == 6
    assert hub.cut_off == 1
    assert not hub.interested("a")


async def test_a_parked_reader_hears_that_it_was_cut_off() -> None:
    """A burst larger than the buffer reaches a reader that waits."""
    hub = Hub[str]()
    subscription = hub.subscribe("r", buffer=2)
    async with trio.open_nursery() as nursery:

        async def reader() -> None:
            with pytest.raises(SubscriberTooSlow):
                await subscription.next()

        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        publish(hub, "r", 1, 2, 3)


async def test_resume_points_are_bounded_by_the_buffer() -> None:
    hub = Hub[str]()
    subscription = hub.subscribe(buffer=5)
    for number in range(50):
        publish(hub, f"r{number:02}", 1)
        await subscription.next()
    publish(hub, "burst", *range(1, 7))
    with pytest.raises(SubscriberTooSlow) as caught:
        await subscription.next()
    assert list(caught.value.last_seqs) == [f"r{number}" for number in range(45, 50)]


async def test_a_cancelled_reader_loses_nothing() -> None:
    hub = Hub[str]()
    with hub.subscribe("r") as subscription:
        publish(hub, "r", 1)
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.cancel()
            await subscription.next()
        assert (await subscription.next()).seq == 1


async def test_a_parked_reader_that_is_cancelled_leaves_the_next_update_for_later() -> None:
    hub = Hub[str]()
    with hub.subscribe("r") as subscription:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscription.next)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        publish(hub, "r", 1)
        assert (await subscription.next()).seq == 1


async def test_two_readers_at_once_are_refused() -> None:
    hub = Hub[str]()
    async with trio.open_nursery() as nursery:
        with hub.subscribe("r") as subscription:
            nursery.start_soon(subscription.next)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await subscription.next()
            nursery.cancel_scope.cancel()


async def test_a_closed_subscription_says_so() -> None:
    subscription = Hub[str]().subscribe("r")
    subscription.close()
    subscription.close()
    with pytest.raises(trio.ClosedResourceError):
        await subscription.next()


async def test_a_stopping_hub_ends_streams_after_what_was_published() -> None:
    hub = Hub[str]()
    subscription = hub.subscribe("r")
    publish(hub, "r", 1)
    hub.stop()
    publish(hub, "r", 2)
    assert (await subscription.next()).seq == 1
    with pytest.raises(Unavailable):
        await subscription.next()
    with pytest.raises(Unavailable):
        hub.subscribe("r")
    with pytest.raises(Unavailable):
        hub.waiter("r")


async def test_nonsense_is_refused() -> None:
    hub = Hub[str]()
    with pytest.raises(ValueError, match="buffer=0"):
        hub.subscribe(buffer=0)
    with pytest.raises(ValueError, match="limit=0"):
        await hub.subscribe().next_batch(0)


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 4)),
        st.integers(1, 6),
    ),
    max_size=60,
)


@given(steps=steps, buffer=st.integers(1, 8), watched=st.sampled_from([None, "a"]))
def test_what_a_subscriber_reads_is_a_gapless_prefix(
    steps: Sequence[tuple[str, int] | int], buffer: int, watched: str | None
) -> None:
    """Publish and read in any order: the reads are the beginning of what was published."""

    async def scenario() -> None:
        hub = Hub[str]()
        published: list[tuple[str, int]] = []
        got: list[tuple[str, int]] = []
        seqs = dict.fromkeys("abc", 0)
        cut = False
        with hub.subscribe(watched, buffer=buffer) as subscription:
            for one in steps:
                if isinstance(one, int):
                    if cut or len(subscription):
                        if cut:
                            with pytest.raises(SubscriberTooSlow) as caught:
                                await subscription.next()
                            last = dict(sorted(got))
                            assert all(
                                seq == last[run_id]
                                for run_id, seq in caught.value.last_seqs.items()
                            )
                            return
                        batch = await subscription.next_batch(one)
                        got += [(u.run_id, u.seq) for u in batch]
                        assert len(batch) <= one
                    continue
                run_id, count = one
                new = [(run_id, seqs[run_id] + number + 1) for number in range(count)]
                seqs[run_id] += count
                hub.publish(run_id, "default", [update(*place) for place in new])
                if watched in (None, run_id) and not cut:
                    cut = len(subscription) + len(got) != len(published) + len(new)
                    published += new
                    assert cut == (len(published) - len(got) > buffer)
                assert got == published[: len(got)]

    trio.run(scenario)


# --- ends ---


async def test_every_waiter_hears_the_end() -> None:
    hub = Hub[str]()
    got: list[str] = []

    async def wait() -> None:
        got.append(await hub.wait_end("r"))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        publish(hub, "r", 1)
        publish(hub, "other", 1, outcome="not this")
        await wait_all_tasks_blocked()
        assert not got
        publish(hub, "r", 2, outcome="done")
    assert got == ["done"] * 100
    assert not hub.interested("r")


async def test_an_end_between_registering_and_waiting_is_not_missed() -> None:
    hub = Hub[str]()
    with hub.waiter("r") as waiter:
        publish(hub, "r", outcome="done")
        assert waiter.outcome == "done"
        assert await waiter.wait(0) == "done"
        assert await waiter.wait() == "done"


async def test_a_wait_that_is_over_can_be_repeated(autojump_clock: MockClock) -> None:
    hub = Hub[str]()
    with hub.waiter("r") as waiter:
        with pytest.raises(ResultTimeout, match="r has not ended within 2"):
            await waiter.wait(2)
        assert trio.current_time() == 2
        publish(hub, "r", outcome="done")
        assert await waiter.wait(2) == "done"


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    hub = Hub[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.wait_end, "r")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not hub.interested("r")


async def test_a_stopping_hub_ends_waits() -> None:
    hub = Hub[str]()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(Unavailable):
                await hub.wait_end("r")

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        hub.stop()


async def test_the_hub_stops_with_its_actor_and_is_seen_in_the_tree() -> None:
    hub = Hub[str]()
    spec = SupervisorSpec(children=(ChildSpec("hub", lambda: HubActor(hub)),))
    async with open_system("app", spec, rng=Random(0)) as system:
        await wait_all_tasks_blocked()
        with hub.subscribe("r"), hub.waiter("r"):
            (node,) = system.tree().children
            assert (node.kind, node.describe) == ("hub", "1 subscribers, 1 waiters, 0 cut off")
    with pytest.raises(Unavailable):
        hub.waiter("r")
