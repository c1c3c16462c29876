"""Ends: deadlines, cancellation from outside, exceptions of the body, nothing left behind."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from aiki_actors.kernel import (
    ActorStopped,
    SpecError,
    SupervisorFailed,
    SupervisorSpec,
)
from tests.unit.kernel.probes import Do, Hooks, Probe, child, forever, probe, seen, system


async def test_a_handler_past_its_shutdown_deadline_is_cut_off(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    async with system(probe(log, shutdown_s=3)) as app:
        busy = Do(forever)
        child(app).tell(busy)
        await wait_all_tasks_blocked()
        began_s = trio.current_time()
    assert trio.current_time() - began_s == 3
    assert log == ["a started"]
    assert "did not stop within 3 s" in caplog.text
    with pytest.raises(ActorStopped):
        await busy.reply.wait()


async def test_a_stopping_hook_past_its_deadline_is_cut_off(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    async with system(probe(log, shutdown_s=3, hooks=Hooks(stopping=forever))):
        began_s = trio.current_time()
    assert trio.current_time() - began_s == 3
    assert log == ["a started", "a stop"]
    assert "did not stop within 3 s" in caplog.text


async def test_handler_and_hook_share_one_deadline(autojump_clock: MockClock) -> None:
    async def two_seconds(_: Probe) -> None:
        await trio.sleep(2)

    log: list[str] = []
    async with system(probe(log, shutdown_s=3, hooks=Hooks(stopping=two_seconds))) as app:
        child(app).tell(Do(two_seconds))
        await wait_all_tasks_blocked()
        began_s = trio.current_time()
    assert trio.current_time() - began_s == 3
    assert log == ["a started", "a stop"]


async def test_a_shutdown_time_of_zero_kills() -> None:
    log: list[str] = []
    async with system(probe(log, shutdown_s=0)) as app:
        child(app).tell(Do(forever))
        await wait_all_tasks_blocked()
    assert log == ["a started"]


async def test_stop_by_a_ref_has_the_same_deadline(autojump_clock: MockClock) -> None:
    async with system(probe([], shutdown_s=2)) as app:
        ref = child(app)
        ref.tell(Do(forever))
        await wait_all_tasks_blocked()
        began_s = trio.current_time()
        ref.stop()
        ref.stop()
        await ref.wait_stopped()
        assert trio.current_time() - began_s == 2


async def test_kill_cuts_a_stopping_hook_short() -> None:
    async with system(probe([], hooks=Hooks(stopping=forever))) as app:
        ref = child(app)
        ref.stop()
        await wait_all_tasks_blocked()
        ref.kill()
        await ref.wait_stopped()


async def test_the_hook_after_a_failure_has_a_deadline_too(autojump_clock: MockClock) -> None:
    async with system(probe([], shutdown_s=2, hooks=Hooks(stopping=forever))) as app:
        ref = child(app)
        began_s = trio.current_time()
        ref.tell(ValueError())
        ref.tell(1)
        assert await seen(ref) == [1]
        assert trio.current_time() - began_s == 2


async def test_a_stop_during_the_hook_of_a_failure_does_not_lengthen_it(
    autojump_clock: MockClock,
) -> None:
    async with system(probe([], shutdown_s=2, hooks=Hooks(stopping=forever))) as app:
        ref = child(app)
        began_s = trio.current_time()
        ref.tell(ValueError())
        await trio.sleep(1.5)
        ref.stop()
        await ref.wait_stopped()
        assert trio.current_time() - began_s == 2


async def test_a_supervisor_past_its_deadline_is_cut_off_with_its_children(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []
    nested = SupervisorSpec(id="inner", children=(probe(log, "x", shutdown_s=60),), shutdown_s=1)
    async with system(nested) as app:
        x = app.supervisor("inner").child("x")
        assert x is not None
        x.tell(Do(forever))  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        began_s = trio.current_time()
    assert trio.current_time() - began_s == 1
    assert log == ["x started", "x cancelled"]


async def test_cancellation_from_outside_runs_the_hooks_shielded(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []

    async def clean(_: Probe) -> None:
        await trio.sleep(1)

    with trio.move_on_after(5) as scope:
        async with system(
            probe(log, "a", hooks=Hooks(stopping=clean)),
            probe(log, "b", shutdown_s=2, hooks=Hooks(stopping=forever)),
        ) as app:
            child(app, "a").tell(Do(forever))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(autojump_clock.current_time())
    assert sorted(log[2:]) == ["a cancelled", "a cleaned up", "b cancelled"]


async def test_cancellation_during_the_orderly_stop_ends_it(autojump_clock: MockClock) -> None:
    log: list[str] = []
    began_s = trio.current_time()
    with trio.move_on_after(1) as scope:
        async with system(probe(log, shutdown_s=60)) as app:
            child(app).tell(Do(forever))
            await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert trio.current_time() - began_s == 1


async def test_an_exception_of_the_body_leaves_as_itself_after_an_orderly_stop() -> None:
    log: list[str] = []
    error = ValueError("body")
    with pytest.raises(ValueError, match="body") as caught:
        async with system(probe(log), probe(log, "b")):
            raise error
    assert caught.value is error
    assert log[2:] == ["b stop", "a stop"]


async def test_two_errors_leave_as_a_group() -> None:
    """The body fails while it is cancelled because the root gave up."""

    async def run() -> None:
        async with system(probe([]), intensity=0) as app:
            child(app).tell(ValueError("actor"))
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("body")

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    kinds = {type(e) for e in caught.value.exceptions}
    assert kinds == {SupervisorFailed, OSError}


@pytest.mark.parametrize("name", ["", "a/b"])
async def test_a_bad_system_name_is_refused(name: str) -> None:
    from random import Random

    from aiki_actors.kernel import open_system

    with pytest.raises(SpecError, match="system's name"):
        async with open_system(name, SupervisorSpec(), rng=Random(0)):
            pass


async def test_no_task_is_left_when_the_system_is_left() -> None:
    before = trio.lowlevel.current_statistics().tasks_living

    async def begin(p: Probe) -> None:
        p.context.start_soon(trio.sleep_forever)

    async with system(probe([], hooks=Hooks(started=begin)), probe([], "b")) as app:
        for n in range(10):
            app.root.start_child(probe([], f"d{n}", hooks=Hooks(started=begin)))
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living > before + 20
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_refs_of_a_system_that_ended_say_so() -> None:
    async with system(probe([])) as app:
        ref = child(app)
    assert not ref.alive
    with pytest.raises(ActorStopped):
        ref.tell(1)
    with pytest.raises(ActorStopped):
        await ref.send(1)
    await ref.wait_stopped()
    ref.stop()
    ref.kill()
    assert not app.root.alive


async def test_an_actor_stopped_while_it_starts_finishes_starting_and_stops() -> None:
    log: list[str] = []
    gate = trio.Event()

    async def slow(_: Probe) -> None:
        await gate.wait()

    async with system() as app:
        ref = app.root.start_child(probe(log, "x", hooks=Hooks(started=slow)))
        await wait_all_tasks_blocked()
        ref.stop()
        gate.set()
        await ref.wait_stopped()
        assert log == ["x started", "x stop"]


async def test_a_system_can_be_left_while_a_static_child_starts(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with system(probe([], hooks=Hooks(started=forever))):
            raise AssertionError("the body must not begin")
    assert scope.cancelled_caught


async def test_shutdown_may_be_infinite_for_supervisors_only() -> None:
    assert SupervisorSpec().shutdown_s == math.inf
