"""Background tasks: they run beside the handler, fail with the actor and end with it."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from aiki_actors.kernel import (
    ActorFailed,
    ActorStopped,
    ChildFailure,
    Restart,
)
from tests.unit.kernel.probes import (
    Do,
    Hooks,
    Probe,
    child,
    forever,
    probe,
    seen,
    system,
)


async def test_a_background_task_runs_beside_the_handler_and_ends_with_the_actor() -> None:
    log: list[str] = []

    async def background(word: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append(f"{word} ended")

    async def begin(p: Probe) -> None:
        p.context.start_soon(background, "background")

    async with system(probe(log, hooks=Hooks(started=begin))) as app:
        child(app).tell(1)
        assert await seen(child(app)) == [1]
        await app.root.stop_child("a")
    assert log == ["a started", "background ended", "a stop"]


@pytest.mark.parametrize("how", ["stop", "kill", "fail", "cancel"])
async def test_an_actor_hears_of_its_end_before_its_background_tasks_are_cancelled(
    how: str,
) -> None:
    log: list[str] = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("background ended")

    async def begin(p: Probe) -> None:
        p.context.start_soon(background)

    hooks = Hooks(started=begin, ending=lambda _probe: log.append("ending"))
    with trio.CancelScope() as scope:
        async with system(probe(log, restart=Restart.TEMPORARY, hooks=hooks)) as app:
            ref = child(app)
            await seen(ref)
            match how:
                case "stop":
                    ref.stop()
                case "kill":
                    ref.kill()
                case "fail":
                    ref.tell(ValueError())
                case _:
                    scope.cancel()
            await ref.wait_stopped()
    # Where all is cancelled from outside, the two may hear of it in either order.
    assert set(log[1:3]) == {"ending", "background ended"}
    assert how == "cancel" or log[1] == "ending"


async def test_an_error_in_the_hook_for_the_end_is_reported_and_the_end_goes_on() -> None:
    log: list[str] = []
    failures: list[ChildFailure] = []

    def fail(_probe: Probe) -> None:
        raise KeyError("lost")

    async with system(probe(log, hooks=Hooks(ending=fail)), failures=failures) as app:
        await seen(child(app))
        await app.root.stop_child("a")
    assert log == ["a started", "a stop"]
    assert [type(failure.error) for failure in failures] == [KeyError]


async def test_a_failing_background_task_is_the_actors_failure() -> None:
    log: list[str] = []
    go = trio.Event()

    async def background() -> None:
        await go.wait()
        raise OSError("lost")

    async def begin(p: Probe) -> None:
        if not go.is_set():
            p.context.start_soon(background)

    async with system(probe(log, hooks=Hooks(started=begin))) as app:
        busy = Do(forever)
        child(app).tell(busy)
        await wait_all_tasks_blocked()
        go.set()
        with pytest.raises(ActorFailed, match="lost"):
            await busy.reply.wait()
        child(app).tell(1)
        assert await seen(child(app)) == [1]
        assert log == ["a started", "a failure", "a started"]
        assert app.failures == 1


async def test_keyboard_interrupt_in_a_background_task_leaves_the_system() -> None:
    async def background() -> None:
        raise KeyboardInterrupt

    async def begin(p: Probe) -> None:
        p.context.start_soon(background)

    with pytest.raises(KeyboardInterrupt):
        async with system(probe([], hooks=Hooks(started=begin))):
            await trio.sleep_forever()


async def test_background_tasks_do_not_outlive_a_kill(autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def begin(p: Probe) -> None:
        p.context.start_soon(background)

    async with system(probe([], hooks=Hooks(started=begin))) as app:
        await seen(child(app))
        ref = child(app)
        ref.kill()
        await ref.wait_stopped()
        assert ended.is_set()


async def test_a_second_failing_background_task_is_reported_too() -> None:
    failures: list[ChildFailure] = []
    go = trio.Event()

    async def background(error: Exception) -> None:
        await go.wait()
        raise error

    async def begin(p: Probe) -> None:
        if not go.is_set():
            p.context.start_soon(background, OSError(1))
            p.context.start_soon(background, OSError(2))

    async with system(probe([], hooks=Hooks(started=begin)), failures=failures) as app:
        go.set()
        await wait_all_tasks_blocked()
        assert sorted(str(f.error) for f in failures) == ["1", "2"]
        assert app.tree().children[0].restarts == 1


async def test_a_handler_that_fails_while_its_background_failed_reports_both() -> None:
    failures: list[ChildFailure] = []

    async def background() -> None:
        raise OSError("background")

    async def fail_on_cancel(p: Probe) -> None:
        p.context.start_soon(background)
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise OSError("handler") from None

    async with system(probe([]), failures=failures) as app:
        with pytest.raises(ActorFailed, match="background"):
            await child(app).ask(partial(Do, fail_on_cancel), deadline_s=None)
        await wait_all_tasks_blocked()
        assert sorted(str(f.error) for f in failures) == ["background", "handler"]


async def test_the_stopping_hook_cannot_start_background_tasks() -> None:
    async def start(p: Probe) -> None:
        with pytest.raises(ActorStopped):
            p.context.start_soon(trio.sleep_forever)

    async with system(probe([], hooks=Hooks(stopping=start))) as app:
        await app.root.stop_child("a")
        assert app.failures == 0
