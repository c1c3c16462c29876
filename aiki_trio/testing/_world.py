"""The world of one test: a disk, the time, and one life of the runtime after another.

    world (one Trio task tree)
    ├─ lives      one runtime after another, each until it is killed
    └─ patience   ends a test in which nothing can happen any more

Invariants: at most one life runs, and the next begins when nothing of the one before runs any more;
`up` is set exactly while a life takes requests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

import trio
from attrs import define, field, frozen

from aiki_actors.storage import Storage
from aiki_actors.worker import WorkerHooks
from aiki_sdk import AnyWorkflow, SeededIds, SeededRng, TrioClock, WorkflowRegistry
from aiki_trio._runtime import Runtime
from aiki_trio._settings import RuntimeSettings
from aiki_trio._storage_url import open_storage

from ._disk import Gate, KillPlan
from ._life import Life
from ._patience import PATIENCE_S, NothingHappens, nothing_happens
from ._tasks import TaskDesk
from ._time import TestTime


@frozen
class Plan:
    """What a world is made of; see `Aiki` for the meaning of each."""

    storage: str
    settings: RuntimeSettings
    namespace: str
    start: datetime
    seed: int | str
    kill: KillPlan
    between_lives: Callable[[Storage], Awaitable[None]] | None
    registry: WorkflowRegistry
    desk: TaskDesk


@define(eq=False)
class Done:
    """What a crash returns: it has taken place; await it to wait until the system is up again."""

    _event: trio.Event = field(factory=trio.Event)

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until a new worker, or a new runtime, has taken over."""
        return self._event.wait().__await__()

    def set(self) -> None:
        """Say that the system is up again."""
        self._event.set()


@define(eq=False)
class World:
    """Everything that exists while the kit is open."""

    plan: Plan
    storage: Storage
    time: TestTime
    nursery: trio.Nursery
    clock: TrioClock = field(init=False)
    life: Life | None = field(default=None, init=False)
    _ids: SeededIds = field(init=False)
    _rng: SeededRng = field(init=False)
    _up: trio.Event = field(factory=trio.Event, init=False)
    _waiting: list[Done] = field(factory=lambda: list[Done](), init=False)

    def __attrs_post_init__(self) -> None:
        """Begin time and chance."""
        plan = self.plan
        self.clock = TrioClock(plan.start, origin_s=trio.current_time())
        self._ids, self._rng = SeededIds(plan.seed), SeededRng(plan.seed)
        plan.desk.clock, plan.desk.time = self.clock, self.time

    async def present(self) -> Life:
        """Return the life of the runtime that takes requests; waits while there is none."""
        while not self._up.is_set():
            await self._up.wait()
        assert self.life is not None, "what is up lives"
        return self.life

    async def keep_living(self) -> None:
        """Run one life after another, for ever."""
        plan = self.plan
        while True:
            life = self.life = self._make_life()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.run)
                await life.started_or_ended()
                if not life.killed:
                    self._up.set()
                    waiting, self._waiting = self._waiting, []
                    for done in waiting:
                        done.set()
            plan.desk.life += 1
            if plan.between_lives is not None:
                with self.time.held():
                    await plan.between_lives(self.storage)

    def _make_life(self) -> Life:
        plan = self.plan
        gate = Gate(self.storage, self.time, plan.kill, self.kill)
        runtime = Runtime(
            settings=plan.settings,
            registry=plan.registry,
            storage=gate,
            clock=self.clock,
            ids=self._ids,
            rng=self._rng,
            namespace=plan.namespace,
            hooks=WorkerHooks(plan.desk.invoke, self.register),
        )
        return Life(runtime, gate, self.time)

    async def be_patient(self) -> None:
        """Fail the test when all that is left to do is to wait for ever."""
        await trio.sleep(PATIENCE_S)
        raise await nothing_happens(self.storage, self.plan.namespace)

    def register(self, workflow: AnyWorkflow) -> None:
        """Make a workflow known to the present life and those after it."""
        if self.life is None:
            self.plan.registry.add(workflow)
        else:
            self.life.runtime.register(workflow)

    # --- Killing ----------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the present life; the next one begins when nothing of it runs any more."""
        if self.life is not None and not self.life.killed:
            self._up = trio.Event()
            self.life.kill()

    def restart(self) -> Done:
        """Kill the runtime, and say when the next one takes requests."""
        done = Done()
        self._waiting.append(done)
        self.kill()
        return done

    def crash_worker(self) -> Done:
        """Kill the worker, and say when the next one has its runs."""
        done = Done()
        life = self.life
        if life is None or not self._up.is_set():
            self._waiting.append(done)  # the runtime itself is down, and its worker with it
            return done
        life.cut_worker()
        self.nursery.start_soon(self._replace_worker, life, done)
        return done

    async def _replace_worker(self, life: Life, done: Done) -> None:
        await life.replace_worker()
        done.set()

    def close(self) -> None:
        """End everything at once."""
        if self.life is not None:
            self.life.kill()
        self.nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_world(plan: Plan) -> AsyncGenerator[World]:
    """Open a world around the body; an error of the body leaves it as itself.

    Raises:
        NothingHappens: the body waited for what can never come.
        StorageError: the disk cannot be used.

    """
    problem: BaseException | None = None
    try:
        with TestTime() as time:
            async with _opened_storage(plan, time) as storage, trio.open_nursery() as nursery:
                world = World(plan, storage, time, nursery)
                nursery.start_soon(world.keep_living)
                nursery.start_soon(world.be_patient)
                await world.present()
                try:
                    yield world
                finally:
                    world.close()
    except BaseExceptionGroup as group:
        problem = _the_one(group)
    if isinstance(problem, NothingHappens):
        raise problem from None
    if problem is not None:
        raise problem


@asynccontextmanager
async def _opened_storage(plan: Plan, time: TestTime) -> AsyncGenerator[Storage]:
    """Open the disk; opening and closing take no time."""
    opening = open_storage(plan.storage, plan.settings.sqlite)
    with time.held():
        storage = await opening.__aenter__()
    try:
        yield storage
    finally:
        with time.held():
            await opening.__aexit__(None, None, None)


def _the_one(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what a group is about: a test's own error without the nurseries around it."""
    found = [error for error in _leaves(group) if not isinstance(error, trio.Cancelled)]
    verdicts = [error for error in found if isinstance(error, NothingHappens)]
    if verdicts:
        return verdicts[0]
    return found[0] if len(found) == 1 else group


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for part in group.exceptions for leaf in _leaves(part)]
