"""One actor: order, one at a time, restart in place, stop, kill, suspension."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from aiki_actors.kernel import (
    Actor,
    ActorFailed,
    ActorStopped,
    BatchActor,
    ChildFailure,
    ChildSpec,
    DeadLetterReason,
    KernelError,
    Reply,
    Restart,
    StopReason,
)
from tests.unit.kernel.probes import (
    Do,
    Get,
    Hooks,
    Probe,
    Quiet,
    child,
    forever,
    probe,
    seen,
    system,
)


async def test_messages_are_handled_in_the_order_they_were_told() -> None:
    async with system(probe([])) as app:
        ref = child(app)
        for n in range(200):
            ref.tell(n)
        assert await seen(ref) == list(range(200))


async def test_messages_told_before_the_actor_started_wait_for_it() -> None:
    async with system() as app:
        ref = app.root.start_child(probe([], "late"))
        ref.tell("early")
        assert ref.mailbox_depth == 1
        assert await seen(ref) == ["early"]


async def test_only_one_message_is_handled_at_a_time() -> None:
    running = 0

    async def enter(_: Probe) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await trio.lowlevel.checkpoint()
        running -= 1

    async with system(probe([])) as app, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(lambda: child(app).ask(partial(Do, enter), deadline_s=None))


async def test_a_failed_actor_keeps_its_ref_and_the_messages_that_wait() -> None:
    """The message that failed is lost; those after it reach the fresh instance."""
    log: list[str] = []
    async with system(probe(log)) as app:
        ref = child(app)
        ref.tell("before")
        ref.tell(ValueError("boom"))
        ref.tell("after")
        assert await seen(ref) == ["after"]
        assert child(app) is ref
        assert ref.alive
        assert log == ["a started", "a failure", "a started"]
        assert app.tree().children[0].restarts == 1


async def test_the_reply_of_the_message_that_failed_names_the_failure() -> None:
    failures: list[ChildFailure] = []
    boom = ValueError("boom")

    async def fail(_: Probe) -> None:
        raise boom

    async with system(probe([]), failures=failures) as app:
        with pytest.raises(ActorFailed, match="/app/a failed") as caught:
            await child(app).ask(partial(Do, fail), deadline_s=None)
        assert caught.value.__cause__ is boom
        assert [(f.path, f.error) for f in failures] == [("/app/a", boom)]
        assert app.failures == 1
        assert app.dead_letters.latest()[0].reason is DeadLetterReason.HANDLER_FAILED


async def test_a_failure_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with system(probe([], restart=Restart.TEMPORARY)) as app:
        ref = child(app)
        ref.tell(ValueError("boom"))
        await ref.wait_stopped()
    (record,) = caplog.records
    assert record.name == "aiki_actors.kernel"
    assert "/app/a" in record.getMessage()
    assert record.exc_info is not None


async def test_stop_finishes_the_handler_and_throws_away_what_waits() -> None:
    log: list[str] = []
    gate = trio.Event()

    async def wait(_: Probe) -> None:
        await gate.wait()
        log.append("a finished the handler")

    async with system(probe(log)) as app:
        ref = child(app)
        busy, waiting = Do(wait), Quiet()
        ref.tell(busy)
        await wait_all_tasks_blocked()
        ref.tell(waiting)
        ref.stop()
        assert not ref.alive
        with pytest.raises(ActorStopped, match="/app/a"):
            ref.tell("too late")
        with pytest.raises(ActorStopped):
            await waiting.reply.wait()
        gate.set()
        await ref.wait_stopped()
        assert log == ["a started", "a finished the handler", "a stop"]
        assert busy.reply.done
        assert [x.message for x in app.dead_letters.latest()] == [waiting]
        assert app.root.child("a") is None


async def test_a_permanent_actor_that_was_stopped_stays_stopped() -> None:
    log: list[str] = []
    async with system(probe(log)) as app:
        await app.root.stop_child("a")
        await wait_all_tasks_blocked()
        assert log == ["a started", "a stop"]
        await app.root.stop_child("a")


async def test_stop_of_an_actor_whose_task_has_not_begun_starts_nothing() -> None:
    log: list[str] = []
    async with system() as app:
        await wait_all_tasks_blocked()
        ref = app.root.start_child(probe(log, "x"))
        ref.stop()
        await ref.wait_stopped()
        assert log == []


async def test_kill_cancels_the_handler_and_skips_the_stopping_hook(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []
    async with system(probe(log)) as app:
        ref = child(app)
        busy = Do(forever)
        ref.tell(busy)
        await wait_all_tasks_blocked()
        ref.kill()
        with pytest.raises(ActorStopped):
            await busy.reply.wait()
        await ref.wait_stopped()
        assert log == ["a started"]
        assert app.failures == 0
        assert caplog.records == []


async def test_kill_of_an_actor_whose_task_has_not_begun_starts_nothing() -> None:
    log: list[str] = []
    async with system() as app:
        ref = app.root.start_child(probe(log, "x"))
        ref.kill()
        await ref.wait_stopped()
        assert log == []


async def test_kill_reaches_an_actor_whose_handlers_never_wait() -> None:
    async with system(probe([])) as app:
        ref = child(app)
        await seen(ref)

        async def kill_self(p: Probe) -> None:
            p.context.ref.kill()

        ref.tell(Do(kill_self))
        ref.tell("never handled")
        await ref.wait_stopped()


async def test_an_actor_that_never_waits_lets_others_run() -> None:
    """A full mailbox of handlers without an await does not starve the loop, nor the canceller."""

    async def again(p: Probe) -> None:
        p.context.ref.tell(Do(again))

    async with system(probe([])) as app:
        child(app).tell(Do(again))
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        child(app).stop()


async def test_a_suspended_actor_handles_nothing_until_resumed() -> None:
    async with system(probe([])) as app:
        ref = child(app)
        await seen(ref)
        ref.suspend()
        ref.tell("x")
        await wait_all_tasks_blocked()
        assert ref.mailbox_depth == 1
        assert app.tree().children[0].state == "suspended"
        ref.resume()
        assert await seen(ref) == ["x"]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_suspended_actor_can_be_ended(end: str) -> None:
    async with system(probe([])) as app:
        ref = child(app)
        ref.suspend()
        await wait_all_tasks_blocked()
        getattr(ref, end)()
        await ref.wait_stopped()


async def test_stop_overtakes_messages() -> None:
    log: list[str] = []
    async with system(probe(log)) as app:
        ref = child(app)
        await seen(ref)
        for n in range(5):
            ref.tell(n)
        ref.stop()
        await ref.wait_stopped()
        assert app.dead_letters.count == 5


async def test_stop_self_ends_after_the_handler() -> None:
    log: list[str] = []

    async def leave(p: Probe) -> None:
        p.context.stop_self()
        log.append("still handling")

    async with system(probe(log, restart=Restart.TRANSIENT)) as app:
        ref = child(app)
        await ref.ask(partial(Do, leave), deadline_s=None)
        await ref.wait_stopped()
        assert log == ["a started", "still handling", "a finished"]


async def test_a_permanent_actor_that_ends_itself_is_restarted_with_its_mailbox() -> None:
    log: list[str] = []

    async def leave(p: Probe) -> None:
        p.context.stop_self()

    async with system(probe(log)) as app:
        ref = child(app)
        ref.tell(Do(leave))
        ref.tell("kept")
        assert await seen(ref) == ["kept"]
        assert log == ["a started", "a finished", "a started"]
        assert app.failures == 0


async def test_a_failing_start_counts_as_a_failure_of_the_actor() -> None:
    attempts = 0

    def start() -> Probe:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError("not yet")
        return Probe([], "a", Hooks())

    async with system(ChildSpec("a", start)) as app:
        child(app).tell(1)
        assert await seen(child(app)) == [1]
        assert app.failures == 1


async def test_stopping_runs_after_a_failed_started() -> None:
    log: list[str] = []

    async def fail(_: Probe) -> None:
        raise OSError("no")

    spec = probe(log, restart=Restart.TEMPORARY, hooks=Hooks(started=fail))
    async with system() as app:
        await app.root.start_child(spec).wait_stopped()
        assert log == ["a started", "a failure"]


async def test_a_failing_stopping_hook_is_reported_and_the_end_goes_on() -> None:
    failures: list[ChildFailure] = []

    async def fail(_: Probe) -> None:
        raise OSError("disk")

    async with system(probe([], hooks=Hooks(stopping=fail)), failures=failures) as app:
        await app.root.stop_child("a")
        assert [type(f.error) for f in failures] == [OSError]


async def test_an_actor_cannot_wait_for_its_own_answer() -> None:
    async def ask_self(p: Probe) -> None:
        with pytest.raises(KernelError, match="asked itself"):
            await p.context.ref.ask(Get, deadline_s=None)

    async with system(probe([])) as app:
        await child(app).ask(partial(Do, ask_self), deadline_s=None)


async def test_a_stray_cancelled_is_a_failure_and_not_a_silent_end() -> None:
    """`Cancelled` raised again outside the scope it belongs to must not look like cancellation."""
    failures: list[ChildFailure] = []
    strays: list[BaseException] = []

    async def stray(_: Probe) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                strays.append(exc)
                raise
        raise strays[0]

    async with system(probe([]), failures=failures) as app:
        with pytest.raises(ActorFailed):
            await child(app).ask(partial(Do, stray), deadline_s=None)
        child(app).tell(1)
        assert await seen(child(app)) == [1]
        assert [f.error for f in failures] == strays


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_is_not_an_exception_leaves_the_system(error: type[BaseException]) -> None:
    log: list[str] = []

    async def run() -> None:
        async with system(probe(log), probe(log, "b")) as app:
            child(app).tell(error())
            await trio.sleep_forever()

    with pytest.raises(error):
        await run()
    assert "a failure" in log
    assert "b cancelled" in log


async def test_a_handler_that_ends_after_stop_may_still_use_its_context() -> None:
    async def late(p: Probe) -> None:
        p.context.ref.stop()
        p.context.start_soon(trio.sleep_forever)

    async with system(probe([])) as app:
        await child(app).ask(partial(Do, late), deadline_s=None)
        await app.root.stop_child("a")
        assert app.failures == 0


async def test_deferred_answers_reach_their_askers() -> None:
    """A handler may keep replies and answer them from a later message."""
    kept: list[Reply[list[object]]] = []

    async def keep(reply: Reply[list[object]]) -> None:
        kept.append(reply)

    async with system(probe([])) as app, trio.open_nursery() as nursery:
        answers: list[object] = []

        async def ask() -> None:
            def build(reply: Reply[list[object]]) -> object:
                return Do(lambda _: keep(reply))

            answer = await child(app).ask(build, deadline_s=None)
            answers.append(answer)

        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        for reply in kept:
            reply.send(["later"])
        await wait_all_tasks_blocked()
        assert answers == [["later"]] * 3


async def test_stop_reason_given_to_the_hook_on_leaving_the_system_is_stop() -> None:
    log: list[str] = []
    async with system(probe(log)):
        await wait_all_tasks_blocked()
    assert log == ["a started", f"a {StopReason.STOP.value}"]


@pytest.mark.parametrize("kind", [Actor, BatchActor])
async def test_an_actor_without_a_handler_fails_by_name(kind: type[Actor[object]]) -> None:
    failures: list[ChildFailure] = []
    async with system(ChildSpec("a", kind), failures=failures) as app:
        child(app).tell(1)
        await wait_all_tasks_blocked()
        assert isinstance(failures[0].error, TypeError)
        assert kind.__name__ in str(failures[0].error)


async def test_a_group_of_stray_cancelled_is_a_failure() -> None:
    async def stray(_: Probe) -> None:
        kept: list[BaseException] = []
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                kept.append(exc)
                raise
        raise BaseExceptionGroup("stray", kept)

    async with system(probe([])) as app:
        with pytest.raises(ActorFailed, match="stray"):
            await child(app).ask(partial(Do, stray), deadline_s=None)
        assert await seen(child(app)) == []
