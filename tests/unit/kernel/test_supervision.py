"""Supervisors: strategies, restart kinds, intensity, backoff, escalation, nesting."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from aiki_actors.kernel import (
    ActorStopped,
    ChildFailure,
    NameTaken,
    NotRegistered,
    Restart,
    Strategy,
    Supervisor,
    SupervisorFailed,
    SupervisorSpec,
)
from tests.unit.kernel.probes import QUICK, Do, Hooks, Probe, child, forever, probe, seen, system


async def test_children_start_left_to_right_each_after_the_one_before() -> None:
    log: list[str] = []

    async def slowly(p: Probe) -> None:
        await wait_all_tasks_blocked()
        log.append(f"{p.name} ready")

    specs = [probe(log, name, hooks=Hooks(started=slowly)) for name in "abc"]
    async with system(*specs):
        assert log == [line for name in "abc" for line in (f"{name} started", f"{name} ready")]


async def test_children_stop_right_to_left_each_after_the_one_before() -> None:
    log: list[str] = []

    async def slowly(_: Probe) -> None:
        await wait_all_tasks_blocked()

    specs = [probe(log, name, hooks=Hooks(stopping=slowly)) for name in "abc"]
    async with system(*specs):
        log.clear()
    assert log == [line for name in "cba" for line in (f"{name} stop", f"{name} cleaned up")]


async def test_dynamic_children_stop_before_static_ones_and_side_by_side() -> None:
    log: list[str] = []
    together = 0

    async def meet(_: Probe) -> None:
        nonlocal together
        together += 1
        while together < 3:
            await trio.lowlevel.checkpoint()

    async with system(probe(log, "static")) as app:
        for name in "xyz":
            app.root.start_child(probe(log, name, hooks=Hooks(stopping=meet)))
        await wait_all_tasks_blocked()
    assert log[-1] == "static stop"


async def test_one_for_one_restarts_only_the_child_that_failed() -> None:
    log: list[str] = []
    async with system(*(probe(log, name) for name in "abc")) as app:
        log.clear()
        child(app, "b").tell(ValueError())
        await wait_all_tasks_blocked()
        assert log == ["b failure", "b started"]


async def test_one_for_all_stops_right_to_left_and_starts_left_to_right() -> None:
    log: list[str] = []
    specs = [probe(log, name) for name in "abc"]
    async with system(*specs, strategy=Strategy.ONE_FOR_ALL) as app:
        refs = [child(app, name) for name in "abc"]
        log.clear()
        refs[1].tell(ValueError())
        await wait_all_tasks_blocked()
        assert log == ["b failure", "c restart", "a restart", "a started", "b started", "c started"]
        assert [child(app, name) for name in "abc"] == refs
        assert [node.restarts for node in app.tree().children] == [1, 1, 1]


async def test_rest_for_one_restarts_the_child_and_those_after_it() -> None:
    log: list[str] = []
    specs = [probe(log, name) for name in "abcd"]
    async with system(*specs, strategy=Strategy.REST_FOR_ONE) as app:
        log.clear()
        child(app, "b").tell(ValueError())
        await wait_all_tasks_blocked()
        assert log == ["b failure", "d restart", "c restart", "b started", "c started", "d started"]


async def test_a_group_restart_keeps_the_mailboxes_of_all() -> None:
    log: list[str] = []
    specs = [probe(log, name) for name in "ab"]
    async with system(*specs, strategy=Strategy.ONE_FOR_ALL) as app:
        a, b = child(app, "a"), child(app, "b")
        b.suspend()
        b.tell("kept")
        a.tell(ValueError())
        a.tell("kept too")
        await wait_all_tasks_blocked()
        b.resume()
        await wait_all_tasks_blocked()
        assert (await seen(a), await seen(b)) == (["kept too"], ["kept"])


async def test_a_group_restart_ends_temporary_children_for_good() -> None:
    log: list[str] = []
    specs = (probe(log), probe(log, "t", restart=Restart.TEMPORARY))
    async with system(*specs, strategy=Strategy.ONE_FOR_ALL) as app:
        temporary = child(app, "t")
        child(app).tell(ValueError())
        await temporary.wait_stopped()
        await wait_all_tasks_blocked()
        assert log[2:] == ["a failure", "t stop", "a started"]


async def test_a_sibling_too_slow_for_a_group_restart_is_cut_off_and_restarted(
    autojump_clock: MockClock,
) -> None:
    """Past its deadline its `stopping` is skipped, but it is restarted as the others are."""
    log: list[str] = []
    specs = (probe(log, "a"), probe(log, "b", shutdown_s=2))
    async with system(*specs, strategy=Strategy.ONE_FOR_ALL) as app:
        b = child(app, "b")
        b.tell(Do(forever))
        b.tell("kept")
        await wait_all_tasks_blocked()
        began_s = trio.current_time()
        child(app, "a").tell(ValueError())
        assert await seen(b) == ["kept"]
        assert trio.current_time() - began_s == 2
        assert log[2:] == ["a failure", "a started", "b started"]


async def test_a_supervisor_too_slow_for_a_group_restart_keeps_its_static_refs(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []
    nested = SupervisorSpec(id="inner", children=(probe(log, "x", shutdown_s=60),), shutdown_s=2)
    async with system(probe(log, "a"), nested, strategy=Strategy.ONE_FOR_ALL) as app:
        x = app.supervisor("inner").child("x")
        assert x is not None
        x.tell(Do(forever))  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        child(app, "a").tell(ValueError())
        await trio.sleep(3)
        assert x.alive
        assert app.supervisor("inner").child("x") is x
        assert log[2:] == ["a failure", "x cancelled", "a started", "x started"]


async def test_a_sibling_stopped_during_a_group_restart_stays_stopped() -> None:
    log: list[str] = []
    gate = trio.Event()

    async def wait(_: Probe) -> None:
        await gate.wait()

    specs = (probe(log, "a"), probe(log, "b"))
    async with system(*specs, strategy=Strategy.ONE_FOR_ALL) as app:
        b = child(app, "b")
        b.tell(Do(wait))
        child(app, "a").tell(ValueError())
        await wait_all_tasks_blocked()
        b.stop()
        gate.set()
        await b.wait_stopped()
        await wait_all_tasks_blocked()
        assert log[2:] == ["a failure", "b stop", "a started"]


async def test_two_failures_at_once_in_a_group_make_one_restart() -> None:
    log: list[str] = []
    specs = [probe(log, name) for name in "ab"]
    async with system(*specs, strategy=Strategy.ONE_FOR_ALL, intensity=1) as app:
        child(app, "a").tell(ValueError())
        child(app, "b").tell(ValueError())
        await wait_all_tasks_blocked()
        assert sorted(log[2:4]) == ["a failure", "b failure"]
        assert log[4:] == ["a started", "b started"]


@pytest.mark.parametrize(
    ("restart", "after_failure", "after_finish"),
    [
        (Restart.PERMANENT, True, True),
        (Restart.TRANSIENT, True, False),
        (Restart.TEMPORARY, False, False),
    ],
)
@pytest.mark.parametrize("fails", [True, False])
async def test_the_restart_kind_decides_whether_a_child_comes_back(
    restart: Restart, after_failure: bool, after_finish: bool, fails: bool
) -> None:
    async def leave(p: Probe) -> None:
        p.context.stop_self()

    failures: list[ChildFailure] = []
    async with system(probe([], restart=restart), failures=failures) as app:
        ref = child(app)
        ref.tell(ValueError() if fails else Do(leave))
        await wait_all_tasks_blocked()
        assert ref.alive is (after_failure if fails else after_finish)
        assert len(failures) == fails


async def test_too_many_restarts_leave_the_system_as_one_clean_error(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []
    errors = [ValueError(n) for n in range(4)]

    async def run() -> None:
        async with system(probe(log), probe(log, "b")) as app:
            for error in errors:
                child(app).tell(error)
            await trio.sleep_forever()

    with pytest.raises(SupervisorFailed, match="/app gave up: more than 3 restarts in 10 s") as got:
        await run()
    assert got.value.causes == tuple(errors)
    assert got.value.__cause__ is errors[-1]
    assert log.count("a started") == 4
    assert log[-1] == "b stop"


async def test_an_intensity_of_zero_gives_up_at_the_first_failure() -> None:
    async def run() -> None:
        async with system(probe([]), intensity=0) as app:
            child(app).tell(ValueError())
            await trio.sleep_forever()

    with pytest.raises(SupervisorFailed):
        await run()


async def test_restarts_outside_the_period_are_forgotten(autojump_clock: MockClock) -> None:
    async with system(probe([]), intensity=1, period_s=10) as app:
        for _ in range(5):
            child(app).tell(ValueError())
            await trio.sleep(10.5)
        assert app.failures == 5


async def test_restart_delays_grow_with_each_restart(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def note(_: Probe) -> None:
        times.append(trio.current_time())

    spec = probe([], hooks=Hooks(started=note))
    async with system(spec, intensity=9, period_s=100) as app:
        for _ in range(5):
            child(app).tell(ValueError())
        await trio.sleep(60)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits == pytest.approx([0, 1, 2, 4, 8])


async def test_messages_wait_out_a_restart_delay(autojump_clock: MockClock) -> None:
    async with system(probe([])) as app:
        child(app).tell(ValueError())
        child(app).tell(ValueError())
        await wait_all_tasks_blocked()
        assert app.tree().children[0].state == "restarting"
        child(app).tell(1)
        assert await seen(child(app)) == [1]


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_a_stop_does_not_wait_for_a_restart_delay(
    strategy: Strategy, autojump_clock: MockClock
) -> None:
    began_s = trio.current_time()
    async with system(probe([]), strategy=strategy) as app:
        child(app).tell(ValueError())
        child(app).tell(ValueError())
        await wait_all_tasks_blocked()
    assert trio.current_time() == began_s


async def test_a_child_stopped_during_its_restart_delay_ends_at_once(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []
    async with system(probe(log)) as app:
        ref = child(app)
        ref.tell(ValueError())
        ref.tell(ValueError())
        await wait_all_tasks_blocked()
        ref.stop()
        assert not ref.alive
        await trio.sleep(30)
        assert log.count("a started") == 2


def inner(log: list[str], *names: str, intensity: int = 1) -> SupervisorSpec:
    """Spec of a nested supervisor over probes."""
    return SupervisorSpec(
        id="inner",
        children=tuple(probe(log, name) for name in names),
        intensity=intensity,
        backoff=QUICK,
    )


async def test_a_supervisor_that_gives_up_is_restarted_and_its_static_refs_survive() -> None:
    log: list[str] = []
    async with system(inner(log, "x", "y", intensity=0)) as app:
        x = app.supervisor("inner").child("x")
        y = app.supervisor("inner").child("y")
        assert x is not None
        assert y is not None
        log.clear()
        x.tell(ValueError())  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        assert log == ["x failure", "y restart", "x started", "y started"]
        assert x.alive
        assert app.supervisor("inner").child("x") is x
        assert app.tree().children[0].restarts == 1


async def test_a_supervisor_that_gives_up_ends_its_dynamic_children() -> None:
    log: list[str] = []
    async with system(inner(log, "x", intensity=0)) as app:
        nested = app.supervisor("inner")
        dynamic = nested.start_child(probe(log, "d"))
        await seen(dynamic)
        x = nested.child("x")
        assert x is not None
        x.tell(ValueError())  # type: ignore[arg-type]
        await dynamic.wait_stopped()
        await wait_all_tasks_blocked()
        assert [c.name for c in nested.children()] == ["x"]
        assert nested.start_child(probe(log, "d")).alive


async def test_a_restarted_supervisor_counts_restarts_anew() -> None:
    async with system(inner([], "x", intensity=1)) as app:
        x = app.supervisor("inner").child("x")
        assert x is not None
        # The second failure is one too many for `inner`; the third is its first again.
        for _ in range(3):
            x.tell(ValueError())  # type: ignore[arg-type]
            await wait_all_tasks_blocked()
        assert app.tree().children[0].restarts == 1
        assert x.alive


async def test_children_started_while_a_supervisor_is_down_begin_with_it(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []
    async with system(inner(log, "x", intensity=0)) as app:
        nested = app.supervisor("inner")
        x = nested.child("x")
        assert x is not None
        x.tell(ValueError())  # type: ignore[arg-type]
        x.tell(ValueError())  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        assert app.tree().children[0].state == "restarting"
        dynamic = nested.start_child(probe(log, "d"))
        dynamic.tell(1)
        assert await seen(dynamic) == [1]
        assert log[-2:] == ["x started", "d started"]


async def test_a_static_child_ended_before_its_supervisor_began_is_not_started() -> None:
    log: list[str] = []
    async with system() as app:
        nested = app.root.start_supervisor(inner(log, "x", "y"))
        await nested.stop_child("x")
        await wait_all_tasks_blocked()
        assert log == ["y started"]


async def test_failure_climbs_level_by_level_until_it_leaves_the_system() -> None:
    log: list[str] = []
    failures: list[ChildFailure] = []
    middle = SupervisorSpec(id="middle", children=(inner(log, "x", intensity=0),), intensity=0)

    async def run() -> None:
        async with system(middle, intensity=0, failures=failures) as app:
            x = app.supervisor("middle/inner").child("x")
            assert x is not None
            x.tell(ValueError("deep"))  # type: ignore[arg-type]
            await trio.sleep_forever()

    with pytest.raises(SupervisorFailed) as caught:
        await run()
    assert [f.path for f in failures] == [
        "/app/middle/inner/x",
        "/app/middle/inner",
        "/app/middle",
        "/app",
    ]
    assert str(caught.value.causes[0].__cause__.__cause__) == "deep"  # type: ignore[union-attr]


async def test_a_stopped_supervisor_takes_no_children_and_is_gone_from_its_parent() -> None:
    log: list[str] = []
    async with system(inner(log, "x")) as app:
        nested = app.supervisor("inner")
        nested.stop()
        await nested.wait_stopped()
        assert not nested.alive
        with pytest.raises(ActorStopped):
            nested.start_child(probe(log, "d"))
        assert app.root.supervisor("inner") is None
        assert log == ["x started", "x stop"]


async def test_a_killed_supervisor_takes_everything_under_it_along() -> None:
    log: list[str] = []
    async with system(inner(log, "x")) as app:
        nested = app.supervisor("inner")
        x = nested.child("x")
        assert x is not None
        nested.kill()
        await nested.wait_stopped()
        assert not x.alive
        assert log == ["x started", "x cancelled"]


async def test_supervisors_can_be_started_dynamically() -> None:
    log: list[str] = []
    async with system() as app:
        nested = app.root.start_supervisor(inner(log, "x"))
        assert isinstance(nested, Supervisor)
        x = nested.child("x")
        assert x is not None
        await wait_all_tasks_blocked()
        assert x.path == "/app/inner/x"
        await app.root.stop_child("inner")
        assert not x.alive


async def test_a_child_is_found_by_its_spec_with_its_type() -> None:
    spec = probe([])
    async with system(spec) as app:
        assert app.root.ref_of(spec) is child(app)
        with pytest.raises(NotRegistered, match="'a'"):
            app.root.ref_of(probe([]))
        await app.root.stop_child("a")
        with pytest.raises(NotRegistered):
            app.root.ref_of(spec)


async def test_a_living_childs_id_cannot_be_used_again() -> None:
    async with system(probe([])) as app:
        with pytest.raises(NameTaken, match="'a'"):
            app.root.start_child(probe([]))


async def test_a_child_that_was_stopped_is_back_when_its_supervisor_is_restarted() -> None:
    log: list[str] = []
    async with system(inner(log, "x", "y", intensity=0)) as app:
        nested = app.supervisor("inner")
        await nested.stop_child("x")
        y = nested.child("y")
        assert y is not None
        y.tell(ValueError())  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        assert [c.name for c in nested.children()] == ["x", "y"]


async def test_a_failing_failure_callback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    from random import Random

    from aiki_actors.kernel import open_system

    def broken(_: ChildFailure) -> None:
        raise OSError("callback")

    spec = SupervisorSpec(children=(probe([]),))
    async with open_system("app", spec, rng=Random(0), on_child_failure=broken) as app:
        child(app).tell(ValueError())
        child(app).tell(1)
        assert await seen(child(app)) == [1]
    assert "on_child_failure failed" in caplog.text


async def test_a_child_that_fails_while_its_supervisor_stops_is_not_restarted() -> None:
    log: list[str] = []

    async def fail(_: Probe) -> None:
        raise OSError("while stopping")

    async with system(probe(log, hooks=Hooks(stopping=fail))) as app:
        child(app).tell(1)
    assert log == ["a started", "a stop"]
    assert app.failures == 1
