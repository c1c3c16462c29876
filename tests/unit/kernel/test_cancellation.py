"""Cancellation at every await: of callers, of actors, of the whole system.

Goal: wherever cancellation strikes, the system ends with nothing running, every mailbox closed and
every unanswered reply failed. Method: run one busy scenario under a clock-free step counter, cancel
after the n-th scheduler step, for every n until the scenario ends by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from aiki_actors.kernel import (
    ActorFailed,
    ActorRef,
    ChildFailure,
    MailboxPolicy,
    Overflow,
    Restart,
    Strategy,
    SupervisorSpec,
)
from tests.unit.kernel.probes import QUICK, Do, Get, Hooks, Probe, child, probe, seen, system

STEPS_MAX = 400


async def few(_: Probe) -> None:
    """Pass a few checkpoints."""
    for _step in range(3):
        await trio.lowlevel.checkpoint()


class CancelAfter(trio.abc.Instrument):
    """Cancel a scope after a number of task steps."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope = scope
        self.steps = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one step."""
        self.steps -= 1
        if self.steps == 0:
            self.scope.cancel()


async def busy_system(refs: list[ActorRef[object]], log: list[str]) -> None:
    """Use everything that awaits: start, ask, send, failure, group restart, stop, passivation."""
    hooks = Hooks(started=few, stopping=few)
    narrow = MailboxPolicy(1, Overflow.BLOCK)
    nested = SupervisorSpec(
        id="inner",
        children=(probe(log, "x", hooks=hooks), probe(log, "y", hooks=hooks)),
        strategy=Strategy.ONE_FOR_ALL,
        backoff=QUICK,
    )
    async with system(probe(log, mailbox=narrow, hooks=hooks), nested) as app:
        a = child(app)
        refs.append(a)
        for found in app.supervisor("inner").children():
            assert isinstance(found, ActorRef)
            refs.append(cast("ActorRef[object]", found))
        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(a.send, n)
            await a.ask(partial(Do, few), deadline_s=5)
        refs[1].tell(ValueError())
        await seen(refs[2])
        dynamic = app.root.start_child(probe(log, "d", restart=Restart.TEMPORARY, hooks=hooks))
        refs.append(dynamic)
        await dynamic.ask(Get, deadline_s=5)
        await app.root.stop_child("d")


@pytest.mark.parametrize("part", range(4))
def test_the_system_can_be_cancelled_at_every_step(part: int) -> None:
    """Nothing hangs, nothing is left running, all refs are dead, started hooks are paired."""
    for steps in range(part + 1, STEPS_MAX, 4):
        refs: list[ActorRef[object]] = []
        log: list[str] = []

        async def run(
            steps: int = steps, refs: list[ActorRef[object]] = refs, log: list[str] = log
        ) -> bool:
            before = trio.lowlevel.current_statistics().tasks_living
            with trio.CancelScope() as scope:
                instrument = CancelAfter(scope, steps)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await busy_system(refs, log)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert trio.lowlevel.current_statistics().tasks_living == before
            return scope.cancelled_caught

        cancelled = trio.run(run)
        assert not any(ref.alive for ref in refs)
        started = sum(line.endswith(" started") for line in log)
        ended = sum(line.split()[1] in {"stop", "failure", "restart", "cancelled"} for line in log)
        cleaned = sum(line.endswith(" cleaned up") for line in log)
        assert started == ended == cleaned
        if not cancelled:
            return
    raise AssertionError(f"the scenario takes more than {STEPS_MAX} steps; raise STEPS_MAX")


Use = Callable[[ActorRef[object]], Awaitable[object]]


@pytest.mark.parametrize(
    "use",
    [
        lambda ref: ref.send("x"),
        lambda ref: ref.ask(Get, deadline_s=None),
        lambda ref: ref.ask(Get, deadline_s=9),
        lambda ref: ref.wait_stopped(),
    ],
    ids=["send", "ask", "ask with a deadline", "wait_stopped"],
)
@pytest.mark.parametrize("full", [True, False])
async def test_a_caller_can_be_cancelled_while_it_waits(use: Use, full: bool) -> None:
    """The actor goes on, and the caller's message is either wholly there or not at all."""
    async with system(probe([], mailbox=MailboxPolicy(1, Overflow.BLOCK))) as app:
        ref = child(app)
        ref.suspend()
        if full:
            ref.tell("in the way")
        depth = 0
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, ref)
                await wait_all_tasks_blocked()
                depth = ref.mailbox_depth
                scope.cancel()
        assert ref.mailbox_depth == depth
        ref.resume()
        await wait_all_tasks_blocked()
        expected = ["in the way"] if full else []
        assert (await seen(ref))[: len(expected)] == expected


async def test_stop_child_can_be_cancelled_and_the_stop_goes_on() -> None:
    gate = trio.Event()

    async def slow(_: Probe) -> None:
        await gate.wait()

    async with system(probe([], hooks=Hooks(stopping=slow))) as app:
        ref = child(app)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(app.root.stop_child, "a")
                await wait_all_tasks_blocked()
                scope.cancel()
        gate.set()
        await ref.wait_stopped()


async def test_a_failure_mixed_with_cancellation_is_still_reported() -> None:
    """A handler that is cancelled from outside and fails meanwhile: both are seen."""

    async def mixed(_: Probe) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            errors = [cancelled, OSError("during cancellation")]
            raise BaseExceptionGroup("both", errors) from None

    busy = Do(mixed)
    failures: list[ChildFailure] = []
    with trio.CancelScope() as scope:
        async with system(probe([]), failures=failures) as app:
            child(app).tell(busy)
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert len(failures) == 1
    with pytest.raises(ActorFailed):
        await busy.reply.wait()
