"""The test kit's fixture: time skips itself, tasks are mocked and fail, anything can be killed."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
import trio

from aiki_sdk import InvalidRequest, RunFailed, RunStatus, Unavailable
from aiki_trio.testing import Aiki, InjectedFailure, KillPlan, NothingHappens, run

from .testkit_workflows import charge, diary, failing, order, paid, remind, render, trial

STORAGES = pytest.mark.parametrize(
    "storage",
    [
        pytest.param("memory://", marks=pytest.mark.aiki(storage="memory://")),
        pytest.param("sqlite://", marks=pytest.mark.aiki(storage="sqlite://")),
        pytest.param("file", marks=pytest.mark.aiki(storage="sqlite:///runs.db")),
    ],
)


async def test_a_trial_expires(aiki: Aiki) -> None:
    handle = await aiki.start(trial, "user-1")
    await aiki.sleep(timedelta(days=13))
    assert await handle.status() is RunStatus.AWAITING_EVENT
    await aiki.sleep(timedelta(days=2))
    assert await handle.status() is RunStatus.COMPLETED
    assert await handle.result() == "downgraded"
    assert [call.args for call in aiki.calls(remind)] == [("user-1",)]


@STORAGES
async def test_ninety_days_pass_in_an_instant(aiki: Aiki, storage: str) -> None:
    """A child, a thread and an event on the way; real time is a bound, virtual time is exact."""
    began, before = aiki.now(), time.perf_counter()
    handle = await aiki.start(order, 5)
    await handle.send(paid, "txn-1")
    assert await handle.result() == "invoice of charge-5, txn-1, charge-6"
    assert timedelta(days=90) < aiki.now() - began < timedelta(days=90, seconds=10)
    assert time.perf_counter() - before < 5


async def test_what_is_due_at_the_very_moment_has_happened_after_a_sleep(aiki: Aiki) -> None:
    handle = await aiki.start(trial, "user-1")
    await aiki.sleep(timedelta(days=14))
    assert await handle.status() is RunStatus.COMPLETED


async def test_a_thread_takes_no_time(aiki: Aiki) -> None:
    """A plain `def` task waits for the loop, which has every chance to jump and does not."""
    release = threading.Event()

    def slow(charge_id: str) -> str:
        release.wait(5)
        return charge_id

    async def let_go() -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        release.set()

    async def in_thread(charge_id: str) -> str:
        return await trio.to_thread.run_sync(slow, charge_id)

    aiki.mock(render, in_thread)
    handle = await aiki.start(order, 5)
    await handle.send(paid, "txn-1")
    await aiki.sleep(timedelta(days=89))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(aiki.sleep, timedelta(days=2))
        nursery.start_soon(let_go)
    assert release.is_set()
    assert (await handle.result()).startswith("charge-5")
    assert aiki.calls(render)[0].done


async def test_mocks_take_the_place_of_a_task_in_every_life(aiki: Aiki) -> None:
    aiki.mock(charge, lambda amount: f"mock-{amount}")
    aiki.mock(render, lambda charge_id: charge_id.upper())
    diary.charged.clear()
    handle = await aiki.start(order, 5)
    await aiki.restart()
    await handle.send(paid, "txn", reference_id="once")
    assert await handle.result() == "MOCK-5, txn, mock-6"
    assert diary.charged == []


async def test_what_cannot_be_mocked_is_refused(aiki: Aiki) -> None:
    nothing: object = "charge-1"
    with pytest.raises(InvalidRequest, match="pass a function"):
        aiki.mock(charge, nothing)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="is not a task"):
        aiki.calls(trial)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="times=0"):
        aiki.fail(charge, times=0)


async def test_injected_failures_are_retried_by_the_tasks_own_policy(aiki: Aiki) -> None:
    aiki.fail(charge, times=2)
    began = aiki.now()
    await aiki.start(order, 5)
    await aiki.sleep(timedelta(minutes=5))
    calls = aiki.calls(charge)
    assert [call.attempt for call in calls] == [1, 2, 3]
    assert [type(call.error) for call in calls] == [InjectedFailure, InjectedFailure, type(None)]
    assert [(call.at - began).total_seconds() for call in calls] == [0, 10, 30]
    assert calls[2].result == "charge-5"
    assert len({call.idempotency_key for call in calls}) == 1


async def test_an_error_of_the_tests_own_is_injected(aiki: Aiki) -> None:
    aiki.fail(charge, error=TimeoutError("the bank is slow"))
    handle = await aiki.start(failing)
    with pytest.raises(RunFailed, match="no charge: the bank is slow"):
        await handle.result()


@STORAGES
async def test_a_killed_worker_loses_its_run_to_a_new_one(aiki: Aiki, storage: str) -> None:
    """Killed in the middle of a task: the task runs again, and only the second one counts."""
    handle = await aiki.start(order, 5)
    await aiki.settle()
    assert len(aiki.calls(charge)) == 1
    await aiki.crash_worker()
    await handle.send(paid, "txn")
    assert await handle.result() == "invoice of charge-5, txn, charge-6"
    first, again, _child = aiki.calls(charge)
    assert isinstance(first.error, trio.Cancelled)
    assert first.idempotency_key == again.idempotency_key
    assert [call.attempt for call in (first, again)] == [1, 1]  # a lost worker costs no retry
    assert "claim-lost" in [entry.kind for entry in await handle.history()]


async def test_a_task_may_kill_its_own_worker(aiki: Aiki) -> None:
    killed: list[int] = []

    async def deadly(amount: int) -> str:
        if not killed:
            killed.append(amount)
            await aiki.crash_worker()
            pytest.fail("the dead go on")
        return "alive"

    aiki.mock(charge, deadly)
    handle = await aiki.start(order, 5)
    await aiki.sleep(1)
    assert len(aiki.calls(charge)) == 2
    assert await handle.status() is RunStatus.SLEEPING


@STORAGES
async def test_a_restart_loses_nothing_that_was_acknowledged(aiki: Aiki, storage: str) -> None:
    handle = await aiki.start(order, 5)
    await handle.send(paid, "txn")
    await aiki.sleep(timedelta(days=30))
    await aiki.restart()
    await aiki.restart()
    assert await handle.result() == "invoice of charge-5, txn, charge-6"
    assert [call.life for call in aiki.calls(charge)] == [1, 3]


async def test_who_waits_for_a_result_waits_on_through_a_restart(aiki: Aiki) -> None:
    handle = await aiki.start(trial, "user-1")
    results: list[str] = []

    async def wait() -> None:
        results.append(await handle.result())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await aiki.sleep(1)
        await aiki.restart()
    assert results == ["downgraded"]


async def test_updates_go_on_without_a_gap_through_a_restart(aiki: Aiki) -> None:
    handle = await aiki.start(trial, "user-1")
    seqs: list[int] = []
    async for update in handle.updates():
        if not update.live:  # what is not in the journal has no seq of its own
            seqs.append(update.seq)
        if update.kind == "run-parked" and len(aiki.calls(remind)) == 0:
            await aiki.restart()
    assert seqs == list(range(1, len(seqs) + 1))


async def _start_and_be_killed(reference_id: str | None) -> int:
    async with Aiki(plan=KillPlan(at=1)) as aiki:
        handle = await aiki.start(trial, "user-1", reference_id=reference_id)
        await handle.result()
        return await aiki.client.count()


def test_a_start_that_nobody_can_repeat_says_so_when_it_is_killed() -> None:
    with pytest.raises(Unavailable, match="reference_id"):
        run(_start_and_be_killed, None)


def test_a_start_with_a_reference_is_repeated_when_it_is_killed() -> None:
    """And leads to the run that the first one had made."""
    assert run(_start_and_be_killed, "trial-1") == 1


async def test_children_are_registered_by_themselves(aiki: Aiki) -> None:
    handle = await aiki.start(order, 1)
    await handle.send(paid, "txn")
    await handle.result()
    assert [w.name for w in await aiki.client.workflows()] == ["billing", "order"]


async def test_a_registered_workflow_can_be_started_by_name(aiki: Aiki) -> None:
    aiki.register(trial)
    handle = await aiki.client.start("trial", user="user-1")
    assert await handle.result() == "downgraded"


async def _wait_for_ever() -> None:
    async with Aiki() as aiki:
        handle = await aiki.start(order, 1)
        await handle.result()


def test_a_test_that_waits_for_ever_fails_and_says_for_what() -> None:
    with pytest.raises(NothingHappens, match=r"of 'order': awaiting_event \(event 'paid'\)"):
        run(_wait_for_ever)


async def _fail() -> None:
    async with Aiki():
        pytest.fail("the test's own")


def test_a_tests_own_error_leaves_the_kit_as_it_is() -> None:
    """Not inside an exception group, which pytest would show at length."""
    with pytest.raises(pytest.fail.Exception, match="the test's own"):
        run(_fail)


async def test_no_time_passes_while_a_test_holds_it(aiki: Aiki) -> None:
    began = aiki.now()
    with aiki.hold_time(), trio.move_on_after(60) as scope:
        await trio.testing.wait_all_tasks_blocked(0.02)
    assert not scope.cancelled_caught
    assert aiki.now() == began


async def test_a_file_outlasts_the_test_kit(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Run in a loop of its own, twice on one file."""
    url = f"sqlite:///{tmp_path_factory.mktemp('kit') / 'runs.db'}"

    async def begin() -> str:
        async with Aiki(url) as aiki:
            handle = await aiki.start(trial, "user-1")
            await aiki.settle()
            return handle.id

    async def end(run_id: str) -> str:
        async with Aiki(url, workflows=[trial], seed=1) as aiki:
            handle = await aiki.client.get(run_id, workflow=trial)
            return await handle.result()

    assert run(end, run(begin)) == "downgraded"
