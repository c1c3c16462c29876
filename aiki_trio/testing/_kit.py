"""`Aiki`: a whole system for one test, in which time skips itself and anything can be killed.

This is what tests see; what happens behind it is in `_world.py`.

Invariants: what a test registered, mocked or made fail holds in every life; ids and chance come
from a seed, so that two runs of a test differ in the order of concurrent steps at most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, ParamSpec, Self, TypeVar, Unpack, overload

import trio

from aiki_actors.server import KeeperSettings, TimerSettings
from aiki_actors.storage import Storage
from aiki_sdk import (
    AikiError,
    AnyTask,
    AnyWorkflow,
    Client,
    Duration,
    RunHandle,
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
from aiki_trio._settings import RuntimeSettings

from ._disk import KillPlan
from ._life import Life
from ._port import OutlastingPort
from ._tasks import InjectedFailure, TaskCall, TaskDesk
from ._world import Done, Plan, World, open_world

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
    # Time is skipped, but what a test looks at afterwards must still be there.
    keeper=KeeperSettings(
        sweep_s=1.0,
        sweep_max_s=1e9,
        retention=None,
        own_retention=False,
        undelivered_max=FOREVER,
    ),
    timers=TimerSettings(clock_check=None, coalesce=timedelta(0)),
    blocked_after=None,
)
"""The settings that tests have by default; `attrs.evolve` them to change some."""


class NotOpen(AikiError):
    """The kit was used outside of a running test."""

    code = "test-kit-not-open"


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
        self._desk = TaskDesk()
        self._registry = WorkflowRegistry(workflows)
        self._plan = Plan(
            storage,
            settings,
            namespace,
            start,
            seed,
            plan or KillPlan(),
            between_lives,
            self._registry,
            self._desk,
        )
        self._opened: World | None = None
        self._opening: AbstractAsyncContextManager[World] | None = None

    async def __aenter__(self) -> Self:
        opening = self._opening = open_world(self._plan)
        self._opened = await opening.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:  # noqa: PYI036  (handed on as they are)
        assert self._opening is not None, "what is left was entered"
        self._opened = None
        return await self._opening.__aexit__(*error)

    # --- Running workflows ------------------------------------------------------------------------

    @property
    def _world(self) -> World:
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
        return OutlastingPort(self._plan.namespace, self)

    @property
    def all_calls(self) -> tuple[TaskCall, ...]:
        """Every attempt of every task in this test, oldest first."""
        return tuple(self._desk.calls)

    async def present(self) -> Life:
        """Return the life of the runtime that takes requests; waits while there is none."""
        return await self._world.present()

    def register(self, *workflows: AnyWorkflow) -> None:
        """Let workflows be started by name, and executed; `start` and children do it by themselves.

        Raises:
            DuplicateName: another workflow has the name and version of one of them.
        """
        for workflow in workflows:
            if self._opened is None:
                self._registry.add(workflow)
            else:
                self._opened.register(workflow)

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
        return self._world.crash_worker()

    def restart(self) -> Done:
        """Kill the whole runtime now, as SIGKILL would; a new one begins on the same storage.

        Awaiting what this returns is optional: it waits until the new one takes requests.
        """
        return self._world.restart()
