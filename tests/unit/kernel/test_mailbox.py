"""Mailboxes: order, bounds, each overflow policy, senders that wait for room."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from aiki_actors.kernel import (
    ActorStopped,
    AskTimeout,
    DeadLetter,
    DeadLetterReason,
    MailboxFull,
    MailboxPolicy,
    MessageLost,
    Overflow,
    SpecError,
)
from tests.unit.kernel.probes import Do, Get, Quiet, child, forever, probe, seen, system


@pytest.mark.parametrize("overflow", [Overflow.REFUSE, Overflow.BLOCK])
async def test_tell_to_a_full_mailbox_raises_and_names_the_actor(overflow: Overflow) -> None:
    async with system(probe([], mailbox=MailboxPolicy(2, overflow))) as app:
        ref = child(app)
        ref.suspend()
        ref.tell(1)
        ref.tell(2)
        with pytest.raises(MailboxFull, match=r"/app/a is full \(2 messages"):
            ref.tell(3)
        ref.resume()
        await wait_all_tasks_blocked()
        assert await seen(ref) == [1, 2]


async def test_send_to_a_full_refusing_mailbox_raises() -> None:
    async with system(probe([], mailbox=MailboxPolicy(1, Overflow.REFUSE))) as app:
        ref = child(app)
        ref.suspend()
        ref.tell(1)
        with pytest.raises(MailboxFull):
            await ref.send(2)


async def test_drop_oldest_keeps_the_newest_and_fails_the_lost_reply() -> None:
    async with system(probe([], mailbox=MailboxPolicy(2, Overflow.DROP_OLDEST))) as app:
        ref = child(app)
        ref.suspend()
        lost = Quiet()
        ref.tell(lost)
        ref.tell(2)
        ref.tell(3)
        with pytest.raises(MessageLost):
            await lost.reply.wait()
        ref.resume()
        await wait_all_tasks_blocked()
        assert await seen(ref) == [2, 3]
        assert [x.reason for x in app.dead_letters.latest()] == [DeadLetterReason.DROPPED_OLDEST]


async def test_drop_newest_keeps_the_oldest_and_fails_the_lost_reply() -> None:
    async with system(probe([], mailbox=MailboxPolicy(1, Overflow.DROP_NEWEST))) as app:
        ref = child(app)
        ref.suspend()
        ref.tell(1)
        lost = Quiet()
        ref.tell(lost)
        with pytest.raises(MessageLost):
            await lost.reply.wait()
        ref.resume()
        await wait_all_tasks_blocked()
        assert await seen(ref) == [1]
        assert [x.reason for x in app.dead_letters.latest()] == [DeadLetterReason.DROPPED_NEWEST]


async def test_blocked_senders_get_room_in_the_order_they_came() -> None:
    async with (
        system(probe([], mailbox=MailboxPolicy(1, Overflow.BLOCK))) as app,
        trio.open_nursery() as nursery,
    ):
        ref = child(app)
        ref.suspend()
        for n in range(6):
            nursery.start_soon(ref.send, n)
            await wait_all_tasks_blocked()
        with pytest.raises(MailboxFull):
            ref.tell("cannot overtake those who wait")
        ref.resume()
        await wait_all_tasks_blocked()
        assert await seen(ref) == list(range(6))


async def test_a_cancelled_sender_leaves_no_message_behind() -> None:
    async with (
        system(probe([], mailbox=MailboxPolicy(1, Overflow.BLOCK))) as app,
        trio.open_nursery() as nursery,
    ):
        ref = child(app)
        ref.suspend()
        ref.tell(0)
        with trio.CancelScope() as scope:
            nursery.start_soon(ref.send, 2)
            scope.cancel()
            await ref.send(1)
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        ref.resume()
        await wait_all_tasks_blocked()
        assert await seen(ref) == [0, 2]


async def test_a_cancelled_send_with_room_sends_nothing() -> None:
    async with system(probe([])) as app:
        ref = child(app)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.send(1)
        assert await seen(ref) == []


async def test_blocked_senders_are_told_when_the_actor_stops() -> None:
    async with (
        system(probe([], mailbox=MailboxPolicy(1, Overflow.BLOCK))) as app,
        trio.open_nursery() as nursery,
    ):
        ref = child(app)
        ref.suspend()
        ref.tell(0)

        async def send() -> None:
            with pytest.raises(ActorStopped):
                await ref.send(1)

        nursery.start_soon(send)
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        ref.stop()


async def test_ask_waits_for_room_within_its_deadline(autojump_clock: MockClock) -> None:
    async with system(probe([], mailbox=MailboxPolicy(1, Overflow.BLOCK))) as app:
        ref = child(app)
        ref.tell(Do(forever))
        await wait_all_tasks_blocked()
        ref.tell("in the way")
        began_s = trio.current_time()
        with pytest.raises(AskTimeout, match="/app/a did not answer within 3 s"):
            await ref.ask(Get, deadline_s=3)
        assert trio.current_time() - began_s == 3
        assert ref.mailbox_depth == 1
        ref.kill()


async def test_send_is_always_a_checkpoint() -> None:
    async with system(probe([])) as app:
        with assert_checkpoints():
            await child(app).send(1)


def test_a_mailbox_without_room_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"MailboxPolicy.capacity is 0"):
        MailboxPolicy(0)


async def test_dead_letters_are_bounded_counted_and_shown_to_subscribers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shown: list[DeadLetter] = []

    def broken(_: DeadLetter) -> None:
        raise ValueError("subscriber")

    async with system(probe([], mailbox=MailboxPolicy(1, Overflow.DROP_NEWEST))) as app:
        app.dead_letters.subscribe(broken)
        app.dead_letters.subscribe(shown.append)
        ref = child(app)
        ref.suspend()
        for n in range(1001):
            ref.tell(n)
        assert app.dead_letters.count == 1000
        assert [x.message for x in shown] == list(range(1, 1001))
        assert [x.message for x in app.dead_letters.latest()] == list(range(745, 1001))
        assert "subscriber failed" in caplog.text


class Model:
    """A mailbox in the plainest words, to compare with."""

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self.capacity = capacity
        self.overflow = overflow
        self.items: deque[int] = deque()
        self.lost: list[int] = []

    def tell(self, message: int) -> bool:
        """Say whether it was taken or dropped, rather than refused."""
        if len(self.items) < self.capacity:
            self.items.append(message)
            return True
        if self.overflow is Overflow.DROP_OLDEST:
            self.lost.append(self.items.popleft())
            self.items.append(message)
            return True
        if self.overflow is Overflow.DROP_NEWEST:
            self.lost.append(message)
            return True
        return False


@given(
    capacity=st.integers(1, 6),
    overflow=st.sampled_from(Overflow),
    bursts=st.lists(st.integers(0, 9), max_size=8),
)
def test_a_mailbox_behaves_as_its_model(
    capacity: int, overflow: Overflow, bursts: list[int]
) -> None:
    """Bursts into a suspended actor, drained after each: order, bounds, losses, refusals."""

    async def run() -> None:
        model = Model(capacity, overflow)
        handled: list[int] = []
        async with system(probe([], mailbox=MailboxPolicy(capacity, overflow))) as app:
            ref = child(app)
            number = 0
            for burst in bursts:
                ref.suspend()
                for _ in range(burst):
                    number += 1
                    if model.tell(number):
                        ref.tell(number)
                    else:
                        with pytest.raises(MailboxFull):
                            ref.tell(number)
                    assert ref.mailbox_depth == len(model.items) <= capacity
                ref.resume()
                await wait_all_tasks_blocked()
                handled.extend(model.items)
                model.items.clear()
            assert await seen(ref) == handled
            assert [x.message for x in app.dead_letters.latest()] == model.lost

    trio.run(run)


@given(
    senders=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    capacity=st.integers(1, 4),
    random=st.random_module(),
)
def test_every_senders_messages_keep_their_order(
    senders: list[int], capacity: int, random: object
) -> None:
    """Several senders into one small blocking mailbox: nothing lost, nothing twice, FIFO each."""

    async def run() -> None:
        mailbox = MailboxPolicy(capacity, Overflow.BLOCK)
        async with system(probe([], mailbox=mailbox)) as app:
            ref = child(app)

            async def send(sender: int, count: int) -> None:
                for n in range(count):
                    await ref.send((sender, n))

            async with trio.open_nursery() as nursery:
                for sender, count in enumerate(senders):
                    nursery.start_soon(send, sender, count)
            got = await seen(ref)
            for sender, count in enumerate(senders):
                expected = [(sender, n) for n in range(count)]
                assert [m for m in got if m in expected] == expected
            assert len(got) == sum(senders)

    trio.run(run)
