"""Replies and asks: one answer, deadlines, askers that gave up."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from aiki_actors.kernel import AskTimeout, Reply, ReplyMisused, SpecError
from tests.unit.kernel.probes import Do, Get, child, forever, probe, system


async def test_an_answer_given_before_the_wait_is_kept() -> None:
    reply: Reply[int] = Reply()
    before = reply.done
    reply.send(5)
    assert (before, reply.done) == (False, True)
    with assert_checkpoints():
        assert await reply.wait() == 5


async def test_an_answer_wakes_the_waiter() -> None:
    reply: Reply[int] = Reply()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await reply.wait() == 7

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        reply.send(7)


async def test_a_failure_is_raised_by_the_wait() -> None:
    reply: Reply[int] = Reply()
    reply.fail(OSError("no"))
    with pytest.raises(OSError, match="no"):
        await reply.wait()


def test_a_second_answer_is_refused() -> None:
    reply: Reply[int] = Reply()
    reply.send(1)
    with pytest.raises(ReplyMisused):
        reply.send(2)
    with pytest.raises(ReplyMisused):
        reply.fail(ValueError())


async def test_an_answer_to_a_lost_message_is_ignored() -> None:
    """After the kernel failed the reply, a handler's late answer must not fail the handler."""
    reply: Reply[int] = Reply()
    reply.lose(OSError("lost"))
    reply.send(1)
    reply.lose(OSError("again"))
    with pytest.raises(OSError, match="lost"):
        await reply.wait()


async def test_a_second_waiter_is_refused() -> None:
    reply: Reply[int] = Reply()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reply.wait)
        await wait_all_tasks_blocked()
        with pytest.raises(ReplyMisused):
            await reply.wait()
        reply.send(1)


async def test_an_answer_after_the_asker_was_cancelled_is_ignored() -> None:
    reply: Reply[int] = Reply()
    with trio.CancelScope() as scope:
        scope.cancel()
        await reply.wait()
    assert reply.done
    reply.send(1)
    reply.fail(ValueError())
    with pytest.raises(ReplyMisused, match="given up"):
        await reply.wait()


async def test_wait_gives_up_at_its_deadline(autojump_clock: MockClock) -> None:
    reply: Reply[int] = Reply()
    with pytest.raises(trio.TooSlowError):
        await reply.wait(2)
    assert trio.current_time() == autojump_clock.current_time()
    assert reply.done


async def test_ask_names_the_actor_and_the_deadline(autojump_clock: MockClock) -> None:
    async with system(probe([])) as app:
        slow = Do(forever)
        child(app).tell(slow)
        began_s = trio.current_time()
        with pytest.raises(AskTimeout) as caught:
            await child(app).ask(Get, deadline_s=1.5)
        assert (caught.value.path, caught.value.deadline_s) == ("/app/a", 1.5)
        assert trio.current_time() - began_s == 1.5
        child(app).kill()


async def test_an_answer_after_the_askers_deadline_is_ignored(autojump_clock: MockClock) -> None:
    async def slow(_: object) -> None:
        await trio.sleep(5)

    async with system(probe([])) as app:
        with pytest.raises(AskTimeout):
            await child(app).ask(partial(Do, slow), deadline_s=1)
        await trio.sleep(10)
        assert app.failures == 0


@pytest.mark.parametrize("deadline_s", [-1.0, float("nan")])
async def test_an_impossible_deadline_is_refused(deadline_s: float) -> None:
    async with system(probe([])) as app:
        with pytest.raises(SpecError, match="deadline_s"):
            await child(app).ask(Get, deadline_s=deadline_s)


async def test_a_deadline_of_the_caller_is_not_mistaken_for_the_asks_own(
    autojump_clock: MockClock,
) -> None:
    async with system(probe([])) as app:
        child(app).tell(Do(forever))
        with trio.move_on_after(1) as scope:
            await child(app).ask(Get, deadline_s=5)
        assert scope.cancelled_caught
        child(app).kill()


async def test_ask_is_a_checkpoint() -> None:
    async with system(probe([])) as app:
        with assert_checkpoints():
            await child(app).ask(Get, deadline_s=None)
