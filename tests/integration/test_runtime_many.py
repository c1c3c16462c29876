"""Start-or-send, multicast, bulk commands, versions, pools, labels and children's reference ids."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio

from aiki_sdk import (
    ChildFailed,
    Event,
    InvalidRequest,
    NotFound,
    ReferenceConflict,
    RunCancelled,
    RunEnded,
    UnknownEvent,
    task,
    workflow,
)
from aiki_sdk._run import Run
from tests.integration.runtimes import kinds, settings_with, virtual_runtime

item = Event("item", int)
stop = Event("stop")


@workflow(name="basket", version="1.0.0", events=[item, stop])
async def basket(run: Run, owner: str, size: int = 2) -> list[int]:
    return [await run.wait(item) for _ in range(size)]


# --- Start or send --------------------------------------------------------------------------------


async def test_the_first_event_starts_the_run_and_the_next_reach_it(autojump_clock: object) -> None:
    async with virtual_runtime(basket) as runtime:
        client = runtime.client
        first = await client.send_or_start(basket, ("ann",), item, 1, reference_id="ann")
        second = await client.send_or_start(basket, ("ann", 9), item, 2, reference_id="ann")
        assert first.id == second.id
        assert await second.result() == [1, 2]
        third = await client.send_or_start(basket, ("ann",), item, 3, reference_id="ann")
        assert third.id != first.id
        assert (await client.get(workflow=basket, reference_id="ann")).id == third.id


async def test_many_at_once_start_one_run(autojump_clock: object) -> None:
    async with virtual_runtime(basket) as runtime:
        ids: list[str] = []

        async def one(number: int) -> None:
            handle = await runtime.client.send_or_start(
                basket, ("bo", 20), item, number, reference_id="bo"
            )
            ids.append(handle.id)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        assert len(set(ids)) == 1
        handle = await runtime.client.get(workflow=basket, reference_id="bo")
        assert sorted(await handle.result()) == list(range(20))


async def test_repeated_it_sends_once_also_after_the_run_has_ended(autojump_clock: object) -> None:
    async with virtual_runtime(basket) as runtime:

        async def say() -> str:
            handle = await runtime.client.send_or_start(
                basket, ("cy", 1), item, 1, reference_id="cy", event_reference_id="e-1"
            )
            assert await handle.result() == [1]
            return handle.id

        assert await say() == await say()
        assert await runtime.client.count(workflow=basket) == 1


async def test_what_start_or_send_cannot_do_is_refused(autojump_clock: object) -> None:
    async with virtual_runtime(basket) as runtime:
        client = runtime.client
        with pytest.raises(InvalidRequest, match="reference_id=None"):
            await client.send_or_start(basket, ("x",), item, 1)
        with pytest.raises(InvalidRequest, match="on_conflict"):
            await client.send_or_start(
                basket, ("x",), item, 1, reference_id="x", on_conflict="error"
            )
        with pytest.raises(UnknownEvent):
            await client.send_or_start(basket, ("x",), Event("no"), None, reference_id="x")


# --- Many runs ------------------------------------------------------------------------------------


async def test_multicast_tells_of_each_run_by_id_reference_and_filter(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(basket) as runtime:
        client = runtime.client
        labels = {"shop": "a"}
        handles = [
            await client.options(reference_id=f"r-{n}", labels=labels if n % 2 else {}).start(
                basket, f"{n}", size=3
            )
            for n in range(6)
        ]
        await handles[0].terminate()
        by_id = await client.multicast(item, 1, run_ids=[h.id for h in handles] + ["run_no"])
        assert [outcome.ok for outcome in by_id] == [False, True, True, True, True, True, False]
        assert isinstance(by_id[0].error, RunEnded)
        assert isinstance(by_id[6].error, NotFound)
        assert by_id[1].receipt is not None
        by_reference = await client.multicast(
            item, 2, reference_ids=(basket, ["r-1", "nobody", "r-3"])
        )
        assert [(o.reference_id, o.ok) for o in by_reference] == [
            ("r-1", True),
            ("nobody", False),
            ("r-3", True),
        ]
        by_filter = await client.multicast(
            item, 3, workflow=basket, labels=labels, event_reference_id="once"
        )
        assert {o.run_id for o in by_filter} == {handles[n].id for n in (1, 3, 5)}
        again = await client.multicast(
            item, 3, workflow=basket, labels=labels, event_reference_id="once"
        )
        assert all(o.receipt is not None and o.receipt.duplicate for o in again)
        assert await handles[1].result() == [1, 2, 3]
        with pytest.raises(InvalidRequest, match="pass exactly one"):
            await client.multicast(item, 1)
        with pytest.raises(InvalidRequest, match="pass exactly one"):
            await client.multicast(item, 1, run_ids=[], workflow=basket)


async def test_a_command_over_a_filter_reaches_all_pages(autojump_clock: object) -> None:
    """More runs than a page holds; those that leave the filter on the way move no other."""
    async with virtual_runtime(basket) as runtime:
        client = runtime.client
        await client.start_many([(basket, str(number)) for number in range(1_100)])
        kept = await client.start(basket, "kept", labels={"keep": "yes"})
        await trio.testing.wait_all_tasks_blocked()
        outcomes = await client.bulk("cancel", workflow=basket, reason="closing")
        assert len(outcomes) == 1_101
        assert all(outcome.ok for outcome in outcomes)
        with pytest.raises(RunCancelled, match="closing"):
            await kept.result()
        await trio.sleep(1)
        assert await client.count(status="cancelled") == 1_101
        assert await client.bulk("cancel", workflow=basket) == []


async def test_a_command_without_statuses_is_for_those_it_can_help(autojump_clock: object) -> None:
    async with virtual_runtime(basket, flaky) as runtime:
        client = runtime.client
        await client.start(basket, "a")
        failed = await client.start(flaky)
        await failed.wait("failed")
        (outcome,) = await client.bulk("retry", created_after=(await failed.info()).created_at)
        assert (outcome.run_id, outcome.ok) == (failed.id, True)
        (paused,) = await client.bulk("pause", workflow=basket, reason="lunch")
        assert paused.ok
        (resumed,) = await client.bulk("resume", workflow="basket")
        assert resumed.run_id == paused.run_id
        with pytest.raises(InvalidRequest, match="pass either run_ids= or a filter"):
            await client.bulk("cancel")
        with pytest.raises(InvalidRequest, match="explode"):
            await client.bulk("explode", workflow=basket)


@workflow(name="flaky", version="1.0.0")
async def flaky(run: Run) -> None:
    message = "no"
    raise ValueError(message)


# --- Versions, pools, times -----------------------------------------------------------------------


@task
async def one() -> int:
    return 1


@workflow(name="priced", version="1.0.0")
async def priced(run: Run) -> str:
    await run.sleep("night", hours=8)
    await one()
    return f"old prices of {run.version}"


@workflow(name="priced", version="2.0.0")
async def priced_next(run: Run) -> str:
    await one()
    await run.sleep("night", hours=8)
    return f"new prices of {run.version}"


async def test_versions_run_side_by_side_and_runs_stay_on_theirs(autojump_clock: object) -> None:
    async with virtual_runtime(priced, priced_next, settings=settings_with(warm_max=0)) as runtime:
        client = runtime.client
        old = await client.start(priced)
        newest = await client.start("priced")
        named = await client.start("priced", version="1.0.0")
        assert await old.result() == "old prices of 1.0.0"
        assert await newest.result() == "new prices of 2.0.0"
        assert await named.result() == "old prices of 1.0.0"
        assert await client.count(workflow=priced, version="1.0.0") == 2
        versions = [(w.name, w.version) for w in await client.workflows()]
        assert versions == [("priced", "1.0.0"), ("priced", "2.0.0")]


async def test_a_delayed_run_waits_for_its_time_and_can_be_woken(autojump_clock: object) -> None:
    async with virtual_runtime(flaky) as runtime:
        client = runtime.client
        delayed = await client.start(flaky, delay=timedelta(hours=2))
        at = (await delayed.info()).created_at + timedelta(hours=3)
        later = await client.start(flaky, at=at)
        assert await delayed.status() == "scheduled"
        await delayed.wait("failed")
        assert 7_200 <= trio.current_time() < 7_202
        await later.wake()
        await later.wait("failed")
        assert trio.current_time() < 7_210


# --- Children that want a reference id ------------------------------------------------------------


@workflow(name="house", version="1.0.0")
async def house(run: Run, on_conflict: str, size: int = 1) -> list[int]:
    child = await run.start_child(
        basket, "house", size, reference_id="shared", on_conflict=on_conflict
    )
    return await child.result()


@pytest.mark.parametrize("warm_max", [0, 10])
async def test_a_childs_taken_reference_id_is_a_conflict_that_names_both(
    warm_max: int, autojump_clock: object
) -> None:
    async with virtual_runtime(basket, house, settings=settings_with(warm_max=warm_max)) as runtime:
        holder = await runtime.client.start(basket, "other", reference_id="shared")
        parent = await runtime.client.start(house, "error")
        await parent.wait("failed")
        error = (await parent.info()).error
        assert error is not None
        assert error.type.endswith("ChildFailed")
        assert holder.id in error.message
        (child_id,) = (await parent.info()).children
        assert child_id in error.message
        assert "return_existing" in error.message


@pytest.mark.parametrize("warm_max", [0, 10])
async def test_two_parents_wait_for_one_existing_run(warm_max: int, autojump_clock: object) -> None:
    async with virtual_runtime(basket, house, settings=settings_with(warm_max=warm_max)) as runtime:
        client = runtime.client
        holder = await client.start(basket, "other", 1, reference_id="shared")
        parents = [await client.start(house, "return_existing") for _ in range(2)]
        await trio.sleep(5)
        await holder.send(item, 7)
        assert [await parent.result() for parent in parents] == [[7], [7]]
        late = await client.start(house, "return_existing")
        assert await late.result() == [7]
        assert (await kinds(holder)).count("run-watched") == 3


async def test_a_linked_run_belongs_to_its_own_parent(autojump_clock: object) -> None:
    """Cancelling a parent that merely waits for it does not touch it."""
    async with virtual_runtime(basket, house) as runtime:
        client = runtime.client
        holder = await client.start(basket, "other", 1, reference_id="shared")
        parent = await client.start(house, "return_existing")
        await trio.sleep(1)
        await parent.cancel()
        with pytest.raises(RunCancelled):
            await parent.result()
        assert not (await holder.status()).terminal
        await holder.cancel("over")
        other = await client.start(house, "return_existing")
        await other.wait("failed")


async def test_a_child_takes_over_from_an_ended_run(autojump_clock: object) -> None:
    async with virtual_runtime(basket, house) as runtime:
        client = runtime.client
        holder = await client.start(basket, "other", 1, reference_id="shared")
        await holder.send(item, 1)
        await holder.result()
        parent = await client.start(house, "restart_if_ended")
        await trio.sleep(1)
        child = await client.get(workflow=basket, reference_id="shared")
        assert child.id != holder.id
        await child.send(item, 2)
        assert await parent.result() == [2]


async def test_a_restart_conflicts_with_a_run_that_is_alive(autojump_clock: object) -> None:
    async with virtual_runtime(basket, house) as runtime:
        await runtime.client.start(basket, "other", 1, reference_id="shared")
        parent = await runtime.client.start(house, "restart_if_ended")
        await parent.wait("failed")
        with pytest.raises(ReferenceConflict):
            await runtime.client.start(basket, "new", 5, reference_id="shared")


@workflow(name="patient", version="1.0.0")
async def patient(run: Run) -> str:
    child = await run.start_child(flaky, reference_id="mine")
    try:
        await child.result()
    except ChildFailed:
        again = await run.start_child(flaky, reference_id="mine")
        try:
            await again.result()
        except ChildFailed as error:
            return str(again.id != child.id and "no" in error.error.message)
    return "ended well"


async def test_a_parent_starts_its_failed_child_again_under_the_same_reference_id(
    autojump_clock: object,
) -> None:
    async with virtual_runtime(patient, flaky) as runtime:
        handle = await runtime.client.start(patient)
        assert await handle.result() == "True"
        assert await runtime.client.count(workflow=flaky) == 2
