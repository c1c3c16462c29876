"""Batch actors: what waits is handled together, and lost together."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from typing_extensions import override

from aiki_actors.kernel import (
    ActorContext,
    ActorFailed,
    BatchActor,
    ChildSpec,
    MailboxPolicy,
    Overflow,
    Restart,
    SupervisorSpec,
    open_system,
)
from tests.unit.kernel.probes import (
    Do,
    Get,
    Probe,
    Quiet,
    child,
    probe,
    system,
)


class Batcher(BatchActor[object]):
    """Keep the batches."""

    batch_max = 3

    def __init__(self, batches: list[list[object]]) -> None:
        self.batches = batches

    @override
    async def handle_batch(self, messages: list[object]) -> None:
        self.batches.append(messages)
        for message in messages:
            if isinstance(message, Exception):
                raise message
            if isinstance(message, Get):
                message.reply.send([])


async def test_a_batch_actor_takes_what_waits_up_to_its_maximum() -> None:
    batches: list[list[object]] = []
    spec = ChildSpec("b", lambda: Batcher(batches))
    async with open_system("app", SupervisorSpec(), rng=Random(0)) as app:
        ref = app.root.start_child(spec)
        for n in range(7):
            ref.tell(n)
        await ref.ask(Get, deadline_s=None)
    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert [m for batch in batches for m in batch][:7] == list(range(7))


async def test_a_failing_batch_loses_all_its_messages_and_fails_their_replies() -> None:
    async with system() as app:
        ref = app.root.start_child(ChildSpec("b", lambda: Batcher([])))
        await wait_all_tasks_blocked()
        first, second = Quiet(), Quiet()
        ref.tell(first)
        ref.tell(ValueError("boom"))
        ref.tell(second)
        for message in (first, second):
            with pytest.raises(ActorFailed, match="boom"):
                await message.reply.wait()
        assert app.dead_letters.count == 3


async def test_a_batch_of_lists_is_not_taken_for_a_batch() -> None:
    """Messages may be lists themselves; each is one dead letter."""
    async with system(probe([], restart=Restart.TEMPORARY)) as app:
        ref = child(app)

        async def fail(_: Probe) -> None:
            raise ValueError

        ref.tell(Do(fail))
        ref.tell([1, 2, 3])
        await ref.wait_stopped()
        assert [x.message for x in app.dead_letters.latest()][1:] == [[1, 2, 3]]


async def test_a_batch_actor_can_be_driven_by_hand() -> None:
    batches: list[list[object]] = []
    await Batcher(batches).handle(1)
    assert batches == [[1]]


async def test_a_batch_actor_that_never_waits_lets_others_run() -> None:
    class Loop(BatchActor[object]):
        context: ActorContext[object]

        @override
        async def started(self, context: ActorContext[object]) -> None:
            self.context = context

        @override
        async def handle_batch(self, messages: list[object]) -> None:
            if self.context.ref.alive:
                self.context.ref.tell(1)

    async with system(ChildSpec("a", Loop)) as app:
        child(app).tell(1)
        for _ in range(5):
            await trio.lowlevel.checkpoint()


async def test_batches_make_room_for_blocked_senders() -> None:
    batches: list[list[object]] = []
    narrow = MailboxPolicy(2, Overflow.BLOCK)
    spec = ChildSpec("a", lambda: Batcher(batches), mailbox=narrow)
    async with system(spec) as app, trio.open_nursery() as nursery:
        for n in range(9):
            nursery.start_soon(child(app).send, n)
        await wait_all_tasks_blocked()
        assert sorted(str(m) for batch in batches for m in batch) == [str(n) for n in range(9)]
