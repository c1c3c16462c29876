"""`open_runtime`: the whole system in one process, inside one `async with`.

    runtime (root supervisor)
    ├─ storage    group commit
    ├─ hub        live updates and waiters for results
    ├─ runs       one actor per active run
    ├─ timers     wakes runs when something of them is due
    ├─ sessions   of workers in other processes, once those are let in
    ├─ worker     subscriber, executors
    ├─ queue      hands ready runs out to workers
    ├─ publisher  and puts them into Redis Streams, where that is used; `updates` go there too
    ├─ watchdog   reports code that blocks the loop
    └─ keeper     repeats what was forgotten; at start, the recovery after a crash

Everything lives in the tree: leaving the block stops it in the opposite order, and a failure that
no supervisor could heal leaves the block as one exception.

Length: the parts of one system and how they are put together; each is defined elsewhere.
"""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Never, cast

import trio
from attrs import define, field

from aiki_actors import engine as e
from aiki_actors.kernel import (
    ActorRef,
    ActorSystem,
    ChildSpec,
    MailboxPolicy,
    Overflow,
    Strategy,
    SupervisorSpec,
    TreeNode,
    open_system,
)
from aiki_actors.server import (
    Dispatcher,
    Hub,
    HubActor,
    Keeper,
    QueueActor,
    Runs,
    ServerClientPort,
    Services,
    Sessions,
    StorageActor,
    Timers,
    TimersActor,
    WorkflowCatalogue,
    Write,
    sessions_spec,
)
from aiki_actors.storage import Storage, micros_of
from aiki_actors.worker import (
    OpeningInbox,
    Seal,
    SealedServer,
    ServerPort,
    Subscriber,
    WorkerHooks,
    executors_spec,
)
from aiki_gateway import (
    HOST as GATEWAY_HOST,
    PORT as GATEWAY_PORT,
    Bound,
    GatewaySettings,
    start_gateway,
)
from aiki_sdk import (
    AikiError,
    AnyWorkflow,
    Client,
    Clock,
    Ids,
    PayloadCodec,
    Rng,
    SystemClock,
    SystemIds,
    SystemRng,
    WorkflowRegistry,
)
from aiki_sdk._question import QUESTION_MARK
from aiki_sdk.payload import is_sealed
from aiki_sdk.protocol import Outcome

from ._garbage import collecting_after
from ._gateway_engine import RuntimeEngine
from ._local_session import LocalSession
from ._settings import RuntimeSettings, with_redis
from ._storage_url import open_storage
from ._watchdog import Watchdog, WatchdogActor

if TYPE_CHECKING:
    from ._redis import RedisQueue

DRAIN_S: Final = 5.0
"""Added to the grace of running tasks before the worker's part of the tree is cut off."""


def _nothing() -> None:
    """Stand in for what is only there with Redis."""


@define(eq=False)
class Runtime:
    """A running system. Made by `open_runtime`; valid inside its block."""

    settings: RuntimeSettings
    registry: WorkflowRegistry
    storage: Storage
    clock: Clock
    ids: Ids
    rng: Rng
    namespace: str
    hooks: WorkerHooks = WorkerHooks()
    codec: PayloadCodec | None = None
    serves: bool = False
    """Whether workers in other processes are let in from the start."""
    hub: Hub[Outcome] = field(factory=lambda: Hub[Outcome](), init=False)
    runs: Runs = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    catalogue: WorkflowCatalogue = field(init=False)
    sessions: Sessions = field(init=False)
    timers: Timers = field(init=False)
    keeper: Keeper = field(init=False)
    client: Client = field(init=False)
    system: ActorSystem = field(init=False)
    session: LocalSession | None = field(default=None, init=False)
    """The way to the runtime's own worker; None while it has none."""
    redis: RedisQueue | None = field(default=None, init=False)
    """What is published in Redis; None: it is not used."""
    _serve_local: Callable[[], None] = field(default=_nothing, init=False)
    """Has what pulls for the runtime's own worker pull for what is registered now."""

    def __attrs_post_init__(self) -> None:
        """Make the parts; the tree that runs them is made by `open_runtime`."""
        self.runs = Runs(self.settings.mailbox_max)
        self.catalogue = WorkflowCatalogue(self.registry, self.storage)
        self.dispatcher = Dispatcher(self.ids, self.now, self.runs.claim)
        self.sessions = Sessions(
            self.runs,
            self.dispatcher,
            self.storage,
            self.catalogue,
            self.ids,
            self.clock.monotonic,
            self.settings.sessions,
            importlib.metadata.version("aiki-trio"),
        )
        self.timers = Timers(self.storage, self.now, self._elapse, self.settings.timers)
        self.client = self.client_for(self.namespace)
        if self.settings.redis is not None:
            from ._redis import RedisQueue  # needs redis-py, an extra

            self.redis = RedisQueue(self, self.settings.redis)

    def problems(self) -> dict[str, str]:
        """Say in words what does not work although the runtime does, by component."""
        return {} if self.redis is None else self.redis.problems()

    def now(self) -> e.Micros:
        """Return the runtime's time."""
        return micros_of(self.clock.now())

    def client_for(self, namespace: str) -> Client:
        """Return a client of another namespace of this runtime."""
        return Client(self.port_for(namespace), workflows=self.registry, codec=self.codec)

    def port_for(self, namespace: str) -> ServerClientPort:
        """Return what a client of a namespace speaks to."""
        return ServerClientPort(
            namespace,
            self.catalogue,
            self.storage,
            self.runs,
            self.hub,
            self.ids,
            self.now,
            self.dispatcher.matcher.slots.is_served,
            importlib.metadata.version("aiki-trio"),
            self.settings.on_divergence,
            self.problems,
        )

    async def let_workers_in(self) -> None:
        """Let workers in other processes have sessions from now on; again, it does nothing.

        Raises:
            StorageError: what workers announced before could not be read.

        """
        await self.catalogue.load()
        if self.sessions.supervisor is None:
            self.sessions.started(self.system.root.start_supervisor(sessions_spec()))

    def tree(self) -> TreeNode:
        """Return a picture of the live actor tree."""
        return self.system.tree()

    async def serve(
        self,
        *,
        host: str = GATEWAY_HOST,
        port: int = GATEWAY_PORT,
        settings: GatewaySettings | None = None,
    ) -> Bound:
        """Serve this runtime over HTTP for as long as it runs; needs the extra `[server]`.

        Args:
            host: where to listen; others than this machine need API keys, or `allow_open`.
            port: 0 lets the system choose; the answer tells which.
            settings: every limit of the gateway.

        Returns:
            Where clients can connect, from now on.

        Raises:
            InvalidRequest: the extra is not installed, or the host is open and there are no keys.
            OSError: the address cannot be had.
            NameTaken: it is served already.

        """
        await self.let_workers_in()
        return await start_gateway(
            self.system.root, RuntimeEngine(self), host=host, port=port, settings=settings
        )

    async def recovered(self) -> None:
        """Wait until what an earlier process left behind has been taken up again."""
        await self.keeper.recovered.wait()

    async def _elapse(self, run_ids: list[str]) -> None:
        """Wake runs of which something is due, a bounded number at a time."""
        limiter = trio.CapacityLimiter(self.settings.keeper.parallel)

        async def wake(run_id: str) -> None:
            async with limiter:
                try:
                    await self.runs.do(run_id, e.Elapse())
                except AikiError as error:
                    if error.retryable:
                        self.timers.set(run_id, e.Micros(self.now() + e.SECOND))

        async with trio.open_nursery() as nursery:
            for run_id in run_ids:
                nursery.start_soon(wake, run_id)

    def root_spec(self) -> SupervisorSpec:
        """Describe what stands before anything runs; the rest is started on top of it."""
        mailbox = MailboxPolicy(self.settings.write_max, Overflow.BLOCK)
        return SupervisorSpec(
            children=(
                ChildSpec("storage", lambda: StorageActor(self.storage), mailbox=mailbox),
                ChildSpec("hub", lambda: HubActor(self.hub)),
                SupervisorSpec(id="runs"),
            )
        )

    def start(self, system: ActorSystem) -> None:
        """Start what works on top of storage, hub and runs."""
        self.system = system
        writer = cast("ActorRef[Write] | None", system.root.child("storage"))
        assert writer is not None, "the root supervisor starts the storage actor"
        self.runs.supervisor = system.supervisor("runs")
        self.runs.services = Services(
            storage=self.storage,
            writer=writer,
            hub=self.hub,
            timers=self.timers,
            dispatcher=self.dispatcher,
            now=self.now,
            limits=self.settings.limits,
            deliver=self.runs.deliver,
            check_event=self._check_event,
        )
        system.root.start_child(ChildSpec("timers", lambda: TimersActor(self.timers)))
        if self.serves:
            self.sessions.started(system.root.start_supervisor(sessions_spec()))
        if len(self.registry):
            self.start_worker()
        blocked = self.settings.blocked_after
        if blocked is not None:
            limit_s = blocked.total_seconds()
            system.root.start_child(ChildSpec("watchdog", lambda: WatchdogActor(Watchdog(limit_s))))
        if self.redis is not None:
            for spec in self.redis.specs():
                system.root.start_child(spec)
        system.root.start_child(ChildSpec("queue", self._next_queue))
        self.keeper = self._make_keeper()
        system.root.start_child(ChildSpec("keeper", self._next_keeper))

    def _next_queue(self) -> QueueActor:
        keeper = self.settings.keeper
        return QueueActor(
            self.storage, self.runs, self.dispatcher, keeper.sweep_s, keeper.sweep_max_s
        )

    def _make_keeper(self) -> Keeper:
        return Keeper(
            self.storage,
            self.runs,
            self.dispatcher,
            self.now,
            self.settings.keeper,
            self.catalogue.retentions_s,
            self.sessions.may_return,
        )

    def _next_keeper(self) -> Keeper:
        """Return a keeper for a start or restart; who waits for recovery waits for any of them."""
        recovered = self.keeper.recovered
        self.keeper = self._make_keeper()
        self.keeper.recovered = recovered
        return self.keeper

    def _check_event(self, spec: e.RunCreated, command: e.AcceptEvent) -> AikiError | None:
        """Check data against the event's or question's type, where the code is at hand."""
        workflow = self.registry.get(spec.workflow, spec.version)
        if workflow is None or command.name not in workflow.mailboxes or is_sealed(command.data):
            return None
        name = command.name.removeprefix(QUESTION_MARK)
        try:
            if name == command.name:
                workflow.events[name].decode(command.data)
            else:
                workflow.questions[name].decode_data(command.data)
        except AikiError as error:
            return error
        return None

    def register(self, workflow: AnyWorkflow) -> None:
        """Let clients start this workflow by name, and the runtime's worker execute it.

        Raises:
            DuplicateName: another workflow has its name and version.

        """
        if workflow in self.registry:
            return
        self.registry.add(workflow)
        session = self.session
        if session is not None and session.joined:
            session.join()
            self._serve_local()

    def start_worker(self) -> None:
        """Start the worker, under a new id; the one before it, if there was any, has ended."""
        worker = self.settings.worker
        session = self.session = LocalSession(
            self.ids.worker_id(), self.namespace, self.registry, worker, self.runs, self.dispatcher
        )

        sealed = None if self.codec is None else SealedServer(session, Seal(self.codec))
        port: ServerPort = session if sealed is None else sealed

        def subscriber() -> Subscriber:
            made = Subscriber(
                session.worker_id,
                self.registry,
                worker,
                port,
                self.clock,
                self.ids,
                self.rng,
                "worker/executors",
                self.hooks,
            )
            session.worker = made if sealed is None else OpeningInbox(made, sealed)
            return made

        grace = worker.shutdown_grace_s + DRAIN_S
        self.system.root.start_supervisor(
            SupervisorSpec(
                id="worker",
                strategy=Strategy.ONE_FOR_ALL,
                children=(
                    *self._local_puller(session),
                    executors_spec(worker),
                    ChildSpec("subscriber", subscriber, shutdown_s=grace),
                ),
            )
        )

    def _local_puller(self, session: LocalSession) -> tuple[ChildSpec[Never], ...]:
        """Describe what pulls from Redis for the runtime's own worker; nothing without Redis."""
        if self.settings.redis is None:
            return ()
        from ._redis import local_puller  # needs redis-py, an extra

        self._serve_local, spec = local_puller(self, self.settings.redis, session)
        return (spec,)


@asynccontextmanager
async def open_runtime(
    url: str = "sqlite:///aiki.db",
    *,
    workflows: Iterable[AnyWorkflow] = (),
    settings: RuntimeSettings | None = None,
    namespace: str = "default",
    clock: Clock | None = None,
    ids: Ids | None = None,
    rng: Rng | None = None,
    codec: PayloadCodec | None = None,
    redis_url: str | None = None,
) -> AsyncGenerator[Runtime]:
    """Run durable workflows in this process for as long as the block lasts.

    Args:
        url: where runs are kept; see `open_storage`.
        workflows: what this process can execute.
        settings: every limit and interval.
        namespace: the namespace of `runtime.client` and of the runtime's worker.
        clock: wall and monotonic time. Default: the machine's.
        ids: where ids come from.
        rng: where chance (jitter) comes from.
        codec: encrypts or compresses payloads between the code and what stores them: the database
            never holds one that did not go through it. What it cannot open any more cannot be read.
        redis_url: hands ready runs out through Redis Streams and publishes updates there; needs
            the extra `redis`. `settings.redis` has everything else about it.

    Raises:
        DuplicateName: two workflows have one name and version.
        InvalidRequest: `redis_url` is not the address of a Redis server, or an extra that is needed
            is not installed; the message says.
        StorageError: the database cannot be used, or is in use.

    """
    settings = with_redis(settings or RuntimeSettings(), redis_url)
    clock = clock or SystemClock()
    registry = WorkflowRegistry(workflows)
    chance = rng or SystemRng()
    opening = open_storage(url, settings.sqlite, postgres=settings.postgres, rng=chance)
    async with opening as storage:
        runtime = Runtime(
            settings=settings,
            registry=registry,
            storage=storage,
            clock=clock,
            ids=ids or SystemIds(clock),
            rng=chance,
            namespace=namespace,
            codec=codec,
        )
        async with running(runtime):
            yield runtime


@asynccontextmanager
async def running(runtime: Runtime) -> AsyncGenerator[None]:
    """Run the tree of a runtime that was put together by hand, on storage that is open."""
    # Chance for restart delays only, fed from the runtime's own source.
    jitter = random.Random(runtime.rng.random())  # noqa: S311
    with collecting_after(runtime.settings.collect_after):
        async with open_system("runtime", runtime.root_spec(), rng=jitter) as system:
            runtime.start(system)
            yield
