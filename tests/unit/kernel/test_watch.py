"""Death watch and passivation: who hears of an end, and what slips between."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import wait_all_tasks_blocked

from aiki_actors.kernel import (
    ActorRef,
    ActorStopped,
    ActorSystem,
    Restart,
    SpecError,
)
from tests.unit.kernel.probes import Do, Get, Probe, child, probe, seen, system


async def watch(app: ActorSystem, watcher: str, target: ActorRef[object]) -> None:
    """Have one probe watch another."""

    async def action(p: Probe) -> None:
        p.context.watch(target)

    await child(app, watcher).ask(partial(Do, action), deadline_s=None)


async def test_the_end_of_a_watched_actor_is_told_with_its_reason() -> None:
    log: list[str] = []
    async with system(probe(log, "w"), probe(log, "t", restart=Restart.TEMPORARY)) as app:
        target = child(app, "t")
        await watch(app, "w", target)
        target.tell(ValueError())
        await wait_all_tasks_blocked()
        assert log[-1] == "w saw t failure"


async def test_a_restart_is_no_end() -> None:
    log: list[str] = []
    async with system(probe(log, "w"), probe(log, "t")) as app:
        target = child(app, "t")
        await watch(app, "w", target)
        target.tell(ValueError())
        await wait_all_tasks_blocked()
        assert "w saw" not in " ".join(log)
        target.kill()
        await wait_all_tasks_blocked()
        assert log[-1] == "w saw t kill"


async def test_watching_an_actor_that_has_ended_tells_at_once() -> None:
    log: list[str] = []
    async with system(probe(log, "w"), probe(log, "t")) as app:
        target = child(app, "t")
        await app.root.stop_child("t")
        await watch(app, "w", target)
        await wait_all_tasks_blocked()
        assert log[-1] == "w saw t stop"


async def test_watching_twice_tells_once() -> None:
    log: list[str] = []
    async with system(probe(log, "w"), probe(log, "t")) as app:
        target = child(app, "t")
        await watch(app, "w", target)
        await watch(app, "w", target)
        target.stop()
        await wait_all_tasks_blocked()
        assert log.count("w saw t stop") == 1


async def test_the_notice_overtakes_messages() -> None:
    log: list[str] = []
    async with system(probe(log, "w"), probe(log, "t")) as app:
        watcher, target = child(app, "w"), child(app, "t")
        await watch(app, "w", target)
        watcher.suspend()

        async def note(_: Probe) -> None:
            log.append("message")

        watcher.tell(Do(note))
        target.stop()
        await target.wait_stopped()
        watcher.resume()
        await wait_all_tasks_blocked()
        assert log[-2:] == ["w saw t stop", "message"]


async def test_unwatch_drops_a_notice_that_is_on_its_way() -> None:
    log: list[str] = []
    async with system(probe(log, "w"), probe(log, "t")) as app:
        target = child(app, "t")

        async def action(p: Probe) -> None:
            p.context.watch(target)
            target.kill()
            await target.wait_stopped()
            p.context.unwatch(target)
            p.context.unwatch(target)

        await child(app, "w").ask(partial(Do, action), deadline_s=None)
        await wait_all_tasks_blocked()
        assert "saw" not in " ".join(log)


async def test_a_restart_of_the_watcher_ends_its_watches() -> None:
    log: list[str] = []
    async with system(probe(log, "w"), probe(log, "t")) as app:
        target = child(app, "t")
        await watch(app, "w", target)
        child(app, "w").tell(ValueError())
        await seen(child(app, "w"))
        target.stop()
        await wait_all_tasks_blocked()
        assert "saw" not in " ".join(log)


async def passivate(ref: ActorRef[object]) -> bool:
    """Ask a probe to passivate; return what it was told."""
    told: list[bool] = []

    async def action(p: Probe) -> None:
        told.append(p.context.passivate())

    await ref.ask(partial(Do, action), deadline_s=None)
    return told[0]


async def test_an_idle_actor_passivates() -> None:
    log: list[str] = []
    async with system(probe(log, restart=Restart.TRANSIENT)) as app:
        ref = child(app)
        assert await passivate(ref)
        await ref.wait_stopped()
        assert log == ["a started", "a finished"]
        assert app.dead_letters.count == 0


async def test_an_actor_with_messages_does_not_passivate() -> None:
    async with system(probe([], restart=Restart.TRANSIENT)) as app:
        ref = child(app)

        async def action(p: Probe) -> None:
            p.context.ref.tell("waits")
            assert not p.context.passivate()

        await ref.ask(partial(Do, action), deadline_s=None)
        assert await seen(ref) == ["waits"]


async def test_nothing_slips_in_between_passivate_and_the_end() -> None:
    async with system(probe([], restart=Restart.TRANSIENT)) as app:
        ref = child(app)

        async def action(p: Probe) -> None:
            assert p.context.passivate()
            assert not p.context.ref.alive
            with pytest.raises(ActorStopped):
                p.context.ref.tell("too late")

        await ref.ask(partial(Do, action), deadline_s=None)


async def test_a_permanent_actor_cannot_passivate() -> None:
    async def action(p: Probe) -> None:
        with pytest.raises(SpecError, match="/app/a cannot passivate"):
            p.context.passivate()

    async with system(probe([])) as app:
        await child(app).ask(partial(Do, action), deadline_s=None)


async def test_a_successor_waits_for_its_predecessor_to_end() -> None:
    """Between passivation and the end, the id can be started anew; the two never overlap."""
    log: list[str] = []
    gate = trio.Event()

    async def leave_slowly(p: Probe) -> None:
        assert p.context.passivate()
        await gate.wait()

    async with system() as app:
        spec = probe(log, restart=Restart.TEMPORARY)
        first = app.root.start_child(spec)
        first.tell(Do(leave_slowly))
        await wait_all_tasks_blocked()
        second = app.root.start_child(spec)
        assert second is not first
        second.tell("for the second")
        await wait_all_tasks_blocked()
        assert log == ["a started"]
        gate.set()
        assert await seen(second) == ["for the second"]
        assert log == ["a started", "a finished", "a started"]
        assert child(app) is second


async def test_a_successor_that_is_stopped_before_it_begins_gives_way_to_the_next() -> None:
    log: list[str] = []
    gate = trio.Event()

    async def leave_slowly(p: Probe) -> None:
        assert p.context.passivate()
        await gate.wait()

    async with system() as app:
        spec = probe(log, restart=Restart.TEMPORARY)
        first = app.root.start_child(spec)
        first.tell(Do(leave_slowly))
        await wait_all_tasks_blocked()
        second = app.root.start_child(spec)
        await app.root.stop_child("a")
        assert not second.alive
        third = app.root.start_child(spec)
        await wait_all_tasks_blocked()
        assert log == ["a started"]
        gate.set()
        assert await seen(third) == []


async def test_the_system_can_be_left_while_a_successor_waits() -> None:
    gate = trio.Event()

    async def leave_slowly(p: Probe) -> None:
        assert p.context.passivate()
        await gate.wait()

    async with system() as app:
        spec = probe([], restart=Restart.TEMPORARY)
        app.root.start_child(spec).tell(Do(leave_slowly))
        await wait_all_tasks_blocked()
        second = app.root.start_child(spec)
        gate.set()
    assert not second.alive


@given(moves=st.lists(st.integers(0, 3), min_size=1, max_size=30), random=st.random_module())
def test_a_directory_of_passivating_actors_loses_no_message(
    moves: list[int], random: object
) -> None:
    """Every ask is answered by exactly one incarnation although each passivates when it can."""

    async def run() -> None:
        async with system() as app:

            def activate() -> ActorRef[object]:
                found = app.root.child("a")
                if found is not None:
                    return found  # type: ignore[return-value]
                return app.root.start_child(probe([], restart=Restart.TEMPORARY))

            async def use(pause: int) -> None:
                for _ in range(pause):
                    await trio.lowlevel.checkpoint()

                async def action(p: Probe) -> None:
                    for _ in range(pause):
                        await trio.lowlevel.checkpoint()
                    p.context.passivate()

                await activate().ask(partial(Do, action), deadline_s=None)

            async with trio.open_nursery() as nursery:
                for pause in moves:
                    nursery.start_soon(use, pause)
            assert app.dead_letters.count == 0
            assert app.failures == 0

    trio.run(run)


async def test_asks_of_an_ended_actor_fail_at_once() -> None:
    async with system(probe([])) as app:
        ref = child(app)
        await app.root.stop_child("a")
        with pytest.raises(ActorStopped):
            await ref.ask(Get, deadline_s=None)
