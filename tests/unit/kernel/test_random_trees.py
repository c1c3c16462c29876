"""Random trees under random failures: whatever happens, the kernel's promises hold.

Goal: find interleavings nobody thought of. Method: Hypothesis draws a tree, a script of events and
the scheduler's seed (`st.random_module`); the clock jumps. Afterwards the promises are checked:
nothing runs, every ref is dead, every reply is settled, incarnations of one actor never overlapped,
and the only error that may leave is `SupervisorFailed`.
"""

from __future__ import annotations

from random import Random
from typing import Literal

import trio
from attrs import frozen
from hypothesis import given, strategies as st
from trio.testing import MockClock
from typing_extensions import override

from aiki_actors.kernel import (
    Actor,
    ActorContext,
    ActorRef,
    ActorSystem,
    Backoff,
    ChildFailure,
    ChildSpec,
    KernelError,
    MailboxPolicy,
    Overflow,
    Reply,
    Restart,
    StopReason,
    Strategy,
    Supervisor,
    SupervisorFailed,
    SupervisorSpec,
    open_system,
)

What = Literal["work", "slow", "fail", "leave", "passivate", "spawn", "background"]
Event = Literal["stop", "kill", "stop supervisor", "kill supervisor", "wait"]


@frozen(eq=False)
class Job:
    """One thing to do."""

    what: What
    reply: Reply[str]


class AsTold(Exception):
    """The failure that scripts ask for."""


class World:
    """What the workers observed."""

    def __init__(self) -> None:
        self.alive: dict[str, object] = {}
        self.replies: list[Reply[str]] = []
        self.spawned = 0
        self.unexpected: list[ChildFailure] = []

    def failed(self, failure: ChildFailure) -> None:
        """Keep failures that no script asked for, such as a broken assertion in a worker."""
        if not isinstance(failure.error, AsTold | SupervisorFailed):
            self.unexpected.append(failure)


class Worker(Actor[Job]):
    """Do jobs; note when it lives."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.context: ActorContext[Job]

    @override
    async def started(self, context: ActorContext[Job]) -> None:
        self.context = context
        assert context.path not in self.world.alive, "two incarnations of one actor overlap"
        self.world.alive[context.path] = self
        await trio.lowlevel.checkpoint()

    @override
    async def handle(self, message: Job) -> None:
        context = self.context
        match message.what:
            case "slow":
                await trio.sleep(0.5)
            case "fail":
                await trio.lowlevel.checkpoint()
                raise AsTold
            case "leave":
                context.stop_self()
            case "spawn":
                self.world.spawned += 1
                spec = worker(self.world, f"s{self.world.spawned}", Restart.TEMPORARY, 1)
                if context.supervisor.alive:
                    context.supervisor.start_child(spec)
            case "background":
                context.start_soon(trio.sleep, 0.2)
            case "passivate" | "work":
                await trio.lowlevel.checkpoint()
        message.reply.send("done")

    @override
    async def stopping(self, reason: StopReason) -> None:
        await trio.lowlevel.checkpoint()
        assert self.world.alive.pop(self.context.path) is self


class Ghost(Worker):
    """As `Worker`, but it may be killed, so it does not note that it lives."""

    @override
    async def started(self, context: ActorContext[Job]) -> None:
        self.context = context

    @override
    async def stopping(self, reason: StopReason) -> None:
        await trio.lowlevel.checkpoint()


def worker(
    world: World, name: str, restart: Restart, capacity: int, *, ghost: bool = True
) -> ChildSpec[Job]:
    """Spec of a worker."""
    start = (lambda: Ghost(world)) if ghost else (lambda: Worker(world))
    overflow = list(Overflow)[capacity % 4]
    return ChildSpec(name, start, restart, 2, MailboxPolicy(capacity, overflow))


@frozen
class Shape:
    """A drawn tree: per supervisor its strategy, intensity, and children."""

    strategy: Strategy
    intensity: int
    workers: tuple[tuple[Restart, int], ...]
    inner: tuple[Shape, ...] = ()


def shapes(depth: int) -> st.SearchStrategy[Shape]:
    """Draw trees up to a depth."""
    workers = st.lists(st.tuples(st.sampled_from(Restart), st.integers(1, 5)), max_size=3).map(
        tuple
    )
    inner: st.SearchStrategy[tuple[Shape, ...]] = st.just(())
    if depth:
        inner = st.lists(shapes(depth - 1), max_size=2).map(tuple)
    return st.builds(Shape, st.sampled_from(Strategy), st.integers(0, 3), workers, inner)


def spec_of(shape: Shape, world: World, *, ghost: bool, name: str = "root") -> SupervisorSpec:
    """Turn a drawn shape into a spec."""
    children = [
        worker(world, f"w{n}", restart, capacity, ghost=ghost)
        for n, (restart, capacity) in enumerate(shape.workers)
    ]
    nested = [
        spec_of(child, world, ghost=ghost, name=f"i{n}") for n, child in enumerate(shape.inner)
    ]
    return SupervisorSpec(
        id=name,
        children=(*children, *nested),
        strategy=shape.strategy,
        intensity=shape.intensity,
        backoff=Backoff(0.3, 2, 1, 0.5),
    )


def everybody(root: Supervisor) -> list[ActorRef[Job] | Supervisor]:
    """List all living actors and supervisors under a supervisor."""
    found: list[ActorRef[Job] | Supervisor] = []
    for node in root.children():
        found.append(node)  # type: ignore[arg-type]
        if isinstance(node, Supervisor):
            found.extend(everybody(node))
    return found


async def act(app: ActorSystem, world: World, index: int, event: What | Event) -> None:
    """Let one event happen to one node."""
    nodes = everybody(app.root)
    refs = [node for node in nodes if isinstance(node, ActorRef)]
    supervisors = [node for node in nodes if isinstance(node, Supervisor)]
    match event:
        case "wait":
            await trio.sleep(0.25)
        case "stop" | "kill":
            if refs:
                getattr(refs[index % len(refs)], event)()
        case "stop supervisor" | "kill supervisor":
            if supervisors:
                getattr(supervisors[index % len(supervisors)], event.split()[0])()
        case _:
            if refs:
                reply: Reply[str] = Reply()
                try:
                    refs[index % len(refs)].tell(Job(event, reply))
                except KernelError:
                    return
                world.replies.append(reply)
    if index % 3 == 0:
        await trio.lowlevel.checkpoint()


jobs: st.SearchStrategy[What] = st.sampled_from(
    ["work", "slow", "fail", "fail", "leave", "passivate", "spawn", "background"]
)
gentle: st.SearchStrategy[What | Event] = st.one_of(
    jobs, st.sampled_from(["stop", "stop supervisor", "wait"])
)
rough: st.SearchStrategy[What | Event] = st.one_of(
    gentle, st.sampled_from(["kill", "kill supervisor"])
)


def run_script(
    shape: Shape,
    script: list[tuple[int, What | Event]],
    seed: int,
    *,
    ghost: bool,
    cancel_after_s: float = 1e6,
) -> None:
    """Run one drawn scenario and check the promises."""
    world = World()
    every_ref: list[ActorRef[Job]] = []

    async def run() -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        root = spec_of(shape, world, ghost=ghost)
        try:
            with trio.move_on_after(cancel_after_s):
                async with open_system(
                    "app", root, rng=Random(seed), on_child_failure=world.failed
                ) as app:
                    for index, event in script:
                        await act(app, world, index, event)
                        every_ref.extend(
                            node for node in everybody(app.root) if isinstance(node, ActorRef)
                        )
                    await trio.sleep(len(script) % 3)
        except SupervisorFailed:
            pass
        assert trio.lowlevel.current_statistics().tasks_living == before

    trio.run(run, clock=MockClock(autojump_threshold=0))
    assert not any(ref.alive for ref in every_ref)
    assert all(reply.done for reply in world.replies)
    assert world.alive == {}
    assert world.unexpected == []


scripts = st.lists(st.tuples(st.integers(0, 20), rough), max_size=40)
gentle_scripts = st.lists(st.tuples(st.integers(0, 20), gentle), max_size=40)


@given(shape=shapes(2), script=scripts, seed=st.integers(), random=st.random_module())
def test_random_failures_stops_and_kills_leave_nothing_behind(
    shape: Shape, script: list[tuple[int, What | Event]], seed: int, random: object
) -> None:
    run_script(shape, script, seed, ghost=True)


@given(shape=shapes(2), script=gentle_scripts, seed=st.integers(), random=st.random_module())
def test_incarnations_of_one_actor_never_overlap_and_each_is_cleaned_up(
    shape: Shape, script: list[tuple[int, What | Event]], seed: int, random: object
) -> None:
    run_script(shape, script, seed, ghost=False)


@given(
    shape=shapes(1),
    script=scripts,
    seed=st.integers(),
    after_s=st.floats(0, 2),
    random=st.random_module(),
)
def test_random_cancellation_leaves_nothing_behind(
    shape: Shape,
    script: list[tuple[int, What | Event]],
    seed: int,
    after_s: float,
    random: object,
) -> None:
    run_script(shape, script, seed, ghost=True, cancel_after_s=after_s)
