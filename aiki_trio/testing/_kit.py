"""`Aiki`: a whole system for one test, in which time skips itself and anything can be killed.

    kit (one Trio task tree, entered with `async with`)
    ├─ storage    the disk: outlasts every life of the runtime
    ├─ lives      one runtime after another, each until it is killed
    └─ patience   ends a test in which nothing can happen any more

Invariants: what a test registered, mocked or made fail holds in every life; ids and chance come
from a seed, so that two runs of a test differ in the order of concurrent steps at most.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, ParamSpec, Self, TypeVar, Unpack, cast, overload

import trio
from attrs import define, field

from aiki_actors.server import KeeperSettings, TimerSettings
from aiki_actors.storage import Storage
from aiki_actors.worker import WorkerHooks
from aiki_sdk import (
    AikiError,
    AnyTask,
    AnyWorkflow,
    Client,
    Duration,
    RunHandle,
    SeededIds,
    SeededRng,
    TrioClock,
    Workflow,
    WorkflowRegistry,
)
from aiki_sdk._durations import seconds
from aiki_sdk.client._options import StartKwargs
from aiki_sdk.client._startable import (
    Startable0,
    Startable1,
    Startable2,
    Startable3,
    Startable4,
)
from aiki_trio._runtime import Runtime
from aiki_trio._settings import RuntimeSettings
from aiki_trio._storage_url import open_storage

from ._disk import Gate, KillPlan
from ._life import Life
from ._patience import PATIENCE_S, NothingHappens, nothing_happens
from ._port import OutlastingPort
from ._tasks import InjectedFailure, TaskCall, TaskDesk
from ._time import TestTime

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""What time it is when a test begins, unless it says otherwise."""

SLACK_S: Final = 0.001
"""Added to `aiki.sleep`, so that what is due at that very moment has happened when it returns."""

FOREVER: Final = timedelta(days=365 * 1_000)
"""Longer than any test goes on."""

TEST_SETTINGS: Final = RuntimeSettings(
    # The sweeps of a server wake it every few seconds, which would make a skipped year slow. What
    # they find is due to a crash, so they are frequent after the start of a life and rare later.
    keeper=KeeperSettings(sweep_s=1.0, sweep_max_s=1e9, retention=None, undelivered_max=FOREVER),
    timers=TimerSettings(clock_check=None, coalesce=timedelta(0)),
    blocked_after=None,
)
"""The settings that tests have by default; `attrs.evolve` them to change some."""


class NotOpen(AikiError):
    """The kit was used outside of a running test."""

    code = "test-kit-not-open"


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
class _World:
    """What exists while the kit is open."""

    storage: Storage
    time: TestTime
    clock: TrioClock
    ids: SeededIds
    rng: SeededRng
    nursery: trio.Nursery
    up: trio.Event = field(factory=trio.Event)
    life: Life | None = None
    waiting: list[Done] = field(factory=lambda: list[Done]())


class Aiki:
    """A system under test: storage, server and worker in one, with time that skips itself.

    The pytest fixture `aiki` gives one that is open. By hand, inside Trio with a
    `trio.testing.MockClock(autojump_threshold=0)` (see `run`)::

        async with Aiki(storage="sqlite://") as aiki:
            handle = await aiki.start(trial, "user-1")
    """

    def __init__(
        self,
        storage: str = "memory://",
        *,
        workflows: Iterable[AnyWorkflow] = (),
        settings: RuntimeSettings = TEST_SETTINGS,
        namespace: str = "default",
        start: datetime = START,
        seed: int | str = 0,
        plan: KillPlan | None = None,
        between_lives: Callable[[Storage], Awaitable[None]] | None = None,
    ) -> None:
        """Describe the system; nothing is opened yet.

        Args:
            storage: a storage URL as for `open_runtime`.
            workflows: what can be started by name from the beginning; the rest is registered when
                it is started first.
            settings: those of the runtime; `TEST_SETTINGS` changed.
            namespace: the namespace of `client`.
            start: what time it is at first, an aware datetime.
            seed: where ids and chance come from.
            plan: at which write to kill the runtime; see `crash_everywhere`.
            between_lives: called with the disk after each kill, before the next life begins.
        """
        self._url = storage
        self._settings = settings
        self._namespace = namespace
        self._start = start
        self._seed = seed
        self._plan = plan or KillPlan()
        self._between = between_lives
        self._registry = WorkflowRegistry(workflows)
        self._desk = TaskDesk()
        self._opened: _World | None = None
        self._opening: AbstractAsyncContextManager[None] | None = None

    # --- Opening ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        opening = self._opening = self._open()
        await opening.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:  # noqa: PYI036  (handed on as they are)
        assert self._opening is not None, "what is left was entered"
        return await self._opening.__aexit__(*error)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None]:
        problem: BaseException | None = None
        try:
            with TestTime() as time:
                async with (
                    _opened_storage(self._url, self._settings, time) as storage,
                    trio.open_nursery() as nursery,
                ):
                    world = self._make_world(storage, time, nursery)
                    nursery.start_soon(self._keep_living, world)
                    nursery.start_soon(self._be_patient, world)
                    await self.present()
                    try:
                        yield
                    finally:
                        self._close(world)
        except BaseExceptionGroup as group:
            problem = _the_one(group)
        if isinstance(problem, NothingHappens):
            raise problem from None
        if problem is not None:
            raise problem

    def _make_world(self, storage: Storage, time: TestTime, nursery: trio.Nursery) -> _World:
        clock = TrioClock(self._start, origin_s=trio.current_time())
        self._desk.clock, self._desk.time = clock, time
        world = self._opened = _World(
            storage, time, clock, SeededIds(self._seed), SeededRng(self._seed), nursery
        )
        return world

    def _close(self, world: _World) -> None:
        self._opened = None
        if world.life is not None:
            world.life.kill()
        world.nursery.cancel_scope.cancel()

    async def _keep_living(self, world: _World) -> None:
        """Run one life after another."""
        while True:
            life = world.life = self._make_life(world)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.run)
                await life.started_or_ended()
                if not life.killed:
                    world.up.set()
                    waiting, world.waiting = world.waiting, []
                    for done in waiting:
                        done.set()
            self._desk.life += 1
            if self._between is not None:
                with world.time.held():
                    await self._between(world.storage)

    def _make_life(self, world: _World) -> Life:
        gate = Gate(world.storage, world.time, self._plan, lambda: self._kill(world))
        runtime = Runtime(
            settings=self._settings,
            registry=self._registry,
            storage=gate,
            clock=world.clock,
            ids=world.ids,
            rng=world.rng,
            namespace=self._namespace,
            hooks=WorkerHooks(self._desk.invoke, self.register),
        )
        return Life(runtime, gate, world.time)

    def _kill(self, world: _World) -> None:
        """End the present life; the next one begins when nothing of it runs any more."""
        if world.life is not None and not world.life.killed:
            world.up = trio.Event()
            world.life.kill()

    async def _be_patient(self, world: _World) -> None:
        """Fail the test when all that is left to do is to wait for ever."""
        await trio.sleep(PATIENCE_S)
        raise await nothing_happens(world.storage, self._namespace)

    # --- Running workflows ------------------------------------------------------------------------

    @property
    def _world(self) -> _World:
        if self._opened is None:
            message = (
                "the test kit is not open: write the test as `async def`, or enter it yourself "
                "with `async with Aiki() as aiki:` inside Trio"
            )
            raise NotOpen(message)
        return self._opened

    @property
    def client(self) -> Client:
        """A client of the system; its handles outlast crashes and restarts."""
        return Client(self.port, workflows=self._registry, clock=self._world.clock)

    @property
    def port(self) -> OutlastingPort:
        """What its clients speak to."""
        return OutlastingPort(self._namespace, self)

    @property
    def all_calls(self) -> tuple[TaskCall, ...]:
        """Every attempt of every task in this test, oldest first."""
        return tuple(self._desk.calls)

    async def present(self) -> Life:
        """Return the life of the runtime that takes requests; waits while there is none."""
        world = self._world
        while not world.up.is_set():
            await world.up.wait()
        assert world.life is not None, "what is up lives"
        return world.life

    def register(self, *workflows: AnyWorkflow) -> None:
        """Let workflows be started by name, and executed; `start` and children do it by themselves.

        Raises:
            DuplicateName: another workflow has the name and version of one of them.
        """
        life = None if self._opened is None else self._opened.life
        for workflow in workflows:
            if life is None:
                self._registry.add(workflow)
            else:
                life.runtime.register(workflow)

    @overload
    async def start(
        self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self, workflow: Startable0[R], /, **options: Unpack[StartKwargs]
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self, workflow: Startable1[A, R], a: A, /, **options: Unpack[StartKwargs]
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self, workflow: Startable2[A, B, R], a: A, b: B, /, **options: Unpack[StartKwargs]
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self, workflow: Startable3[A, B, C, R], a: A, b: B, c: C, /, **options: Unpack[StartKwargs]
    ) -> RunHandle[R]: ...

    @overload
    async def start(
        self,
        workflow: Startable4[A, B, C, D, R],
        a: A,
        b: B,
        c: C,
        d: D,
        /,
        **options: Unpack[StartKwargs],
    ) -> RunHandle[R]: ...

    async def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> RunHandle[Any]:
        """Register the workflow and start a run of it; takes what `Client.start` takes.

        Raises what `Client.start` raises.
        """
        self.register(workflow)
        handle: RunHandle[Any] = await self.client.start(workflow, *args, **kwargs)
        return handle

    # --- Time -------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return what time it is in the test."""
        return self._world.clock.now()

    async def sleep(self, duration: Duration) -> None:
        """Let time pass, in an instant: everything due until then has happened when it returns.

        Args:
            duration: seconds or a timedelta.

        Raises:
            InvalidRequest: the duration is not one.
        """
        await trio.sleep(seconds("duration", duration) + SLACK_S)
        await self._world.time.settled()

    async def settle(self) -> None:
        """Wait until nothing can happen any more without time passing."""
        await self._world.time.settled()

    def hold_time(self) -> AbstractContextManager[None]:
        """Return a block in which no time passes: for sockets and threads that Trio cannot see.

        Trio's own threads (`trio.to_thread.run_sync`), plain `def` tasks and the database hold time
        by themselves.
        """
        return self._world.time.held()

    # --- Tasks ------------------------------------------------------------------------------------

    def mock(self, task: AnyTask, function: Callable[..., Any]) -> None:
        """Call `function`, sync or async, in place of the task's own; retries and timeouts stay.

        Raises:
            InvalidRequest: `task` is no task, or `function` cannot be called.
        """
        self._desk.mock(task, function)

    def fail(
        self,
        task: AnyTask,
        times: int = 1,
        error: BaseException | type[BaseException] = InjectedFailure,
    ) -> None:
        """Make the next `times` attempts of the task fail before they do anything.

        Raises:
            InvalidRequest: `task` is no task, or `times` is below 1.
        """
        self._desk.fail(task, times, error)

    def calls(self, task: AnyTask) -> list[TaskCall]:
        """Return the attempts of the task in this test, of all runs and lives, oldest first."""
        return self._desk.calls_of(task)

    # --- Crashes ----------------------------------------------------------------------------------

    def crash_worker(self) -> Done:
        """Kill the worker now, as SIGKILL would; a new one is given the runs that it held.

        Awaiting what this returns is optional: it waits until the new worker has them.
        """
        world, done = self._world, Done()
        life = world.life
        if life is None or not world.up.is_set():
            world.waiting.append(done)  # the runtime itself is down, and its worker with it
            return done
        life.cut_worker()
        world.nursery.start_soon(self._replace_worker, life, done)
        return done

    async def _replace_worker(self, life: Life, done: Done) -> None:
        await life.replace_worker()
        done.set()

    def restart(self) -> Done:
        """Kill the whole runtime now, as SIGKILL would; a new one begins on the same storage.

        Awaiting what this returns is optional: it waits until the new one takes requests.
        """
        world, done = self._world, Done()
        world.waiting.append(done)
        self._kill(world)
        return done


@asynccontextmanager
async def _opened_storage(
    url: str, settings: RuntimeSettings, time: TestTime
) -> AsyncGenerator[Storage]:
    """Open the disk; opening and closing take no time."""
    opening = open_storage(url, settings.sqlite)
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
