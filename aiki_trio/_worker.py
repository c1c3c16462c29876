"""`Worker`: executes runs of a server in another process, from inside any Trio program.

    worker (root supervisor)
    ├─ worker     subscriber, executors
    ├─ puller     takes runs from Redis Streams, where that is used
    └─ session    one websocket to the server, for as long as the worker lives

It needs no server extra. A stop (`stop()`, SIGTERM, SIGINT) takes no more runs, lets running tasks
end within the grace period, gives the rest back and leaves; a cancellation gives everything back at
once. Either way the server has the runs again before this returns, if it can be reached.
"""

from __future__ import annotations

import importlib.metadata
import random
import signal
import socket
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, Never, Protocol, runtime_checkable

import trio
from attrs import evolve

from aiki_actors.kernel import (
    ActorRef,
    ActorSystem,
    ChildSpec,
    Strategy,
    SupervisorSpec,
    TreeNode,
    open_system,
)
from aiki_actors.queue import RedisSettings, redis_settings
from aiki_actors.worker import (
    Dial,
    OpeningInbox,
    RemoteServer,
    RemoteSession,
    Seal,
    SealedServer,
    ServerPort,
    Subscriber,
    WorkerHooks,
    WorkerIdentity,
    WorkerSettings,
    dial_websocket,
    executors_spec,
    host_name,
)
from aiki_sdk import (
    AikiError,
    AnyWorkflow,
    Clock,
    Duration,
    Ids,
    InvalidRequest,
    PayloadCodec,
    Rng,
    SystemClock,
    SystemIds,
    SystemRng,
    WorkflowRegistry,
)
from aiki_sdk._durations import seconds
from aiki_sdk._names import check_name

DRAIN_S: Final = 5.0
"""Added to the grace of running tasks before the worker's part of the tree is cut off."""

HURRY_S: Final = 5.0
"""How long runs may take to be given back when the worker is cancelled."""

GOODBYE_S: Final = 2.0
"""How long the server may take to answer the goodbye."""

GRACE_S: Final = 30.0


@runtime_checkable
class Remote(Protocol):
    """What a worker takes from a client that was made from a URL."""

    @property
    def url(self) -> str | None:
        """Where the server is; None: in this process."""
        ...

    @property
    def api_key(self) -> str | None:
        """The key that the server asks for."""
        ...

    @property
    def namespace(self) -> str:
        """Whose runs are executed."""
        ...


class Worker:
    """Executes runs of a server in another process.

    ::

        async with Client("http://localhost:9850") as client:
            await Worker(client, workflows=[process_order]).run()
    """

    def __init__(
        self,
        client: object,
        *,
        workflows: Iterable[AnyWorkflow],
        pools: Sequence[str] = ("default",),
        max_runs: int = 100,
        grace_period: Duration = GRACE_S,
        settings: WorkerSettings | None = None,
        codec: PayloadCodec | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        rng: Rng | None = None,
        hooks: WorkerHooks | None = None,
        dial: Dial | None = None,
        redis_url: str | None = None,
        redis: RedisSettings | None = None,
    ) -> None:
        """Make a worker; `run` starts it.

        Args:
            client: made from the server's URL; its key and namespace are the worker's.
            workflows: what it can execute.
            pools: which pools it serves.
            max_runs: runs executed at the same time.
            grace_period: seconds or a timedelta that running tasks have to end at a stop.
            settings: everything else; `pools`, `max_runs` and `grace_period` go before it.
            codec: opens and seals payloads, as the clients' codec does.
            clock: wall and monotonic time. Default: the machine's.
            ids: where ids come from.
            rng: where chance (jitter) comes from.
            hooks: what stands around every task; for tests.
            dial: opens the socket to the server, instead of a websocket to the client's URL.
            redis_url: the server's Redis, to pull runs from; while that fails they come over the
                session. Needs the extra `redis`.
            redis: everything else about Redis; `redis_url` goes before its address.

        Raises:
            InvalidRequest: an argument is not valid; naming it, its value and the fix.
            DuplicateName: two workflows have one name and version.

        """
        server = _checked_client(client, dial)
        self._registry = _checked_workflows(workflows)
        if max_runs < 1:
            raise InvalidRequest(f"max_runs={max_runs!r} is not valid: pass 1 or more")
        self._settings = evolve(
            settings or WorkerSettings(),
            runs_max=max_runs,
            pools=tuple(check_name("pool", pool) for pool in pools),
            shutdown_grace_s=seconds("grace_period", grace_period),
        )
        self._clock = clock or SystemClock()
        self._ids = ids or SystemIds(self._clock)
        self._rng = rng or SystemRng()
        self._hooks, self._codec = hooks or WorkerHooks(), codec
        self._dial = dial or _dial_of(server)
        self._stop = trio.Event()
        self._failure: AikiError | None = None
        self._system: ActorSystem | None = None
        self._remote = RemoteServer(
            self._identity(server.namespace),
            self._registry,
            self._settings.pools,
            self._settings.runs_max,
            self._clock.monotonic,
            sealed=codec is not None,
        )
        self._pullers = self._make_pullers(redis_settings(redis_url, redis))

    def _identity(self, namespace: str) -> WorkerIdentity:
        return WorkerIdentity(
            worker_id=f"{self._ids.worker_id()}@{host_name(socket.gethostname())}",
            token=self._ids.claim_id(),
            namespace=namespace,
            release=importlib.metadata.version("aiki-trio"),
        )

    def _make_pullers(self, settings: RedisSettings | None) -> tuple[ChildSpec[Never], ...]:
        if settings is None:
            return ()
        from ._redis import remote_puller  # needs redis-py, an extra

        return (remote_puller(settings, self._remote, self._clock, self._rng),)

    @property
    def id(self) -> str:
        """The worker's id: a ULID, and the host that it runs on."""
        return self._remote.worker_id

    def tree(self) -> TreeNode:
        """Return a picture of the live actor tree.

        Raises:
            InvalidRequest: the worker is not running.

        """
        if self._system is None:
            message = f"worker {self.id} is not running; `await worker.run()` first"
            raise InvalidRequest(message)
        return self._system.tree()

    def stop(self) -> None:
        """Take no more runs, let running tasks end within the grace period, then leave."""
        self._stop.set()

    async def run(
        self,
        *,
        handle_signals: bool = True,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Execute runs until stopped, or cancelled.

        Args:
            handle_signals: whether SIGTERM and SIGINT stop the worker; only in the main thread.
            task_status: told when the worker's actors stand; the connection may come later.

        Raises:
            Unauthorized: the server does not let it in with this key and namespace.
            AikiError: the server refuses it for good, or the worker broke down.

        """
        ended = trio.Event()
        async with trio.open_nursery() as nursery:
            if handle_signals and threading.current_thread() is threading.main_thread():
                await nursery.start(self._stop_on_signal)
            cancelled = trio.Event()
            nursery.start_soon(self._work, cancelled, ended, task_status)
            try:
                await ended.wait()
            finally:
                cancelled.set()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _stop_on_signal(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self._stop.set()

    async def _work(
        self,
        cancelled: trio.Event,
        ended: trio.Event,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Run the tree; deaf to cancellation, of which an event tells, so that it ends in order."""
        # Chance for restart delays only, fed from the worker's own source.
        jitter = random.Random(self._rng.random())  # noqa: S311
        try:
            with trio.CancelScope(shield=True):
                async with open_system("worker", self._root_spec(), rng=jitter) as system:
                    self._system = system
                    task_status.started()
                    await _either(self._stop, cancelled)
                    if self._failure is None:
                        await self._drain(system, cancelled)
                    self._remote.close()
        finally:
            self._system = None
            ended.set()

    async def _drain(self, system: ActorSystem, cancelled: trio.Event) -> None:
        """Give every run back, then say goodbye."""
        worker = system.supervisor("worker")
        executors = system.supervisor("worker/executors")
        worker.stop()
        async with trio.open_nursery() as nursery:

            async def hurry() -> None:
                await cancelled.wait()
                for child in executors.children():
                    if isinstance(child, ActorRef):
                        child.stop()
                await trio.sleep(HURRY_S)
                worker.kill()

            nursery.start_soon(hurry)
            await worker.wait_stopped()
            nursery.cancel_scope.cancel()
        connection = self._remote.connection
        if connection is not None:
            self._remote.goodbye()
            with trio.move_on_after(GOODBYE_S):
                await connection.wait_closed()

    def _fail(self, error: AikiError) -> None:
        self._failure = error
        self._stop.set()

    def _root_spec(self) -> SupervisorSpec:
        settings = self._settings
        grace_s = settings.shutdown_grace_s + DRAIN_S
        return SupervisorSpec(
            children=(
                SupervisorSpec(
                    id="worker",
                    strategy=Strategy.ONE_FOR_ALL,
                    children=(
                        executors_spec(settings),
                        ChildSpec("subscriber", self._subscriber, shutdown_s=grace_s),
                    ),
                ),
                *self._pullers,
                ChildSpec(
                    "session",
                    partial(RemoteSession, self._remote, self._dial, self._rng, self._fail),
                ),
            )
        )

    def _subscriber(self) -> Subscriber:
        sealed = None if self._codec is None else SealedServer(self._remote, Seal(self._codec))
        port: ServerPort = self._remote if sealed is None else sealed
        made = Subscriber(
            self.id,
            self._registry,
            self._settings,
            port,
            self._clock,
            self._ids,
            self._rng,
            "worker/executors",
            self._hooks,
        )
        self._remote.inbox = made if sealed is None else OpeningInbox(made, sealed)
        return made


def _checked_client(client: object, dial: Dial | None) -> Remote:
    if not isinstance(client, Remote) or (client.url is None and dial is None):
        message = (
            f"client={client!r} is not valid for a worker: pass one that was made from the "
            "server's URL, such as Client('http://localhost:9850')"
        )
        raise InvalidRequest(message)
    return client


def _checked_workflows(workflows: Iterable[AnyWorkflow]) -> WorkflowRegistry:
    registry = WorkflowRegistry(workflows)
    if not len(registry):
        message = "workflows=[] is not valid: pass the workflows that the worker can execute"
        raise InvalidRequest(message)
    return registry


def _dial_of(client: Remote) -> Dial:
    """Return how the websocket to a client's server is opened."""
    assert client.url is not None, "a worker without a URL was given its own way to dial"
    headers = [("aiki-namespace", client.namespace)]
    if client.api_key is not None:
        headers.append(("authorization", f"Bearer {client.api_key}"))
    return partial(dial_websocket, client.url, headers)


async def _either(one: trio.Event, other: trio.Event) -> None:
    """Wait until one of two events is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait, one)
        nursery.start_soon(wait, other)
