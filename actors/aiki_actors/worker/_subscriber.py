"""The worker: where ready runs come in, and the executors that run their code.

    worker (supervisor)
    ├─ subscriber   takes assignments, keeps the directory of executors and the warm ones
    └─ executors    a supervisor of temporary children, one per run being executed or kept warm

The subscriber never blocks: an assignment for a run that is warm goes to its executor, any other
starts one. When more runs are parked than may be kept warm, the least recently parked is evicted:
it is replayed when it becomes ready again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import ClassVar, Final, Never

import trio
from attrs import define, field, frozen

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.kernel import (
    Actor,
    ActorContext,
    ActorRef,
    ChildSpec,
    MailboxFull,
    MailboxPolicy,
    NotRegistered,
    Overflow,
    Restart,
    StopReason,
    Supervisor,
    SupervisorSpec,
)
from aiki_sdk import AnyWorkflow, Clock, Ids, Rng, WorkflowRegistry

from ._attempts import THREADS_MAX, Attempts
from ._branches import BranchTracker
from ._executor import Entries, Executor, ExecutorMessage, Freeze, Surroundings
from ._hooks import WorkerHooks
from ._host import host_starter
from ._port import Assignment, ServerPort
from ._processes import PROCESSES_MAX
from ._pulse import RECORD_EVERY_S

LOGGER: Final = logging.getLogger("aiki.worker")


@frozen
class WorkerSettings:
    """What one worker takes on.

    Attributes:
        runs_max: runs executed at the same time.
        warm_max: parked runs kept in memory.
        threads_max: threads for plain `def` tasks.
        processes_max: processes for tasks with `runtime="process"`.
        heartbeat_record_s: seconds between two recorded heartbeats of one attempt: how much of its
            progress an attempt can lose with its worker.
        pools: the pools it serves.
        mailbox_max: entries that may wait for one run's executor.
        shutdown_grace_s: seconds that running tasks have to end at a stop.

    """

    runs_max: int = 100
    warm_max: int = 1_000
    threads_max: int = THREADS_MAX
    processes_max: int = PROCESSES_MAX
    heartbeat_record_s: float = RECORD_EVERY_S
    pools: tuple[str, ...] = ("default",)
    mailbox_max: int = 10_000
    shutdown_grace_s: float = 30.0


@define(eq=False)
class Subscriber(Actor[Never]):
    """Routes what the server says to executors; implements the worker's inbox."""

    kind: ClassVar[str] = "subscriber"
    worker_id: str
    registry: WorkflowRegistry
    settings: WorkerSettings
    port: ServerPort
    clock: Clock
    ids: Ids
    rng: Rng
    executors_path: str
    hooks: WorkerHooks = WorkerHooks()
    tracker: BranchTracker = field(factory=BranchTracker, init=False)
    _executors: Supervisor = field(init=False)
    _refs: dict[str, ActorRef[ExecutorMessage]] = field(
        factory=lambda: dict[str, ActorRef[ExecutorMessage]](), init=False
    )
    _epochs: dict[str, int] = field(factory=lambda: dict[str, int](), init=False)
    _warm: OrderedDict[str, None] = field(factory=lambda: OrderedDict[str, None](), init=False)
    _cold: set[str] = field(factory=lambda: set[str](), init=False)
    """Runs that park here and are not to be kept."""
    _around: Surroundings = field(init=False)
    _attempts: Attempts = field(init=False)
    _began: bool = field(default=False, init=False)
    _draining: bool = field(default=False, init=False)

    async def started(self, context: ActorContext[Never]) -> None:
        """Begin to notice branches; executors come with assignments."""
        try:
            self._executors = context.system.supervisor(self.executors_path)
        except NotRegistered:
            # The system is being left already; were it not, restarting would be given up soon.
            context.stop_self()
            return
        limiter = trio.CapacityLimiter(self.settings.threads_max)
        attempts = self._attempts = Attempts(
            self.clock,
            self.rng,
            limiter,
            self.hooks,
            host_starter(self._executors),
            self.settings.processes_max,
            self.settings.heartbeat_record_s,
        )
        self._around = Surroundings(
            self.port, attempts, self.tracker, self.ids, self.rng, self._parked, self._ended
        )
        trio.lowlevel.add_instrument(self.tracker)
        self._began = True
        self.port.join()

    async def stopping(self, reason: StopReason) -> None:  # noqa: ARG002
        """Take no more runs, let running tasks end within the grace, give the runs back."""
        if not self._began:
            return
        self.port.leave()
        fault_point("worker.stopping")
        self._draining = True
        refs = list(self._refs.values())
        with trio.move_on_after(self.settings.shutdown_grace_s):
            for ref in refs:
                if ref.name in self._warm:
                    ref.stop()
                elif ref.alive:
                    ref.tell(Freeze("shutdown"))
            for ref in refs:
                await ref.wait_stopped()
        trio.lowlevel.remove_instrument(self.tracker)

    def assign(self, assignment: Assignment) -> None:
        """Execute a run, or go on with a warm one."""
        run_id = assignment.run_id
        if self._draining:
            # It was claimed for this worker while that was on its way out.
            self.port.lost(run_id, assignment.claim.epoch, "the worker is stopping")
            return
        self._warm.pop(run_id, None)
        self._cold.discard(run_id)
        ref = self._refs.get(run_id)
        self._epochs[run_id] = assignment.claim.epoch
        warm = assignment.entries[0].seq > 1
        if ref is not None and ref.alive:
            if warm:
                self._tell(ref, assignment.entries)
                return
            # Another worker may have gone on with the run since it parked here: what is in memory
            # has missed that. The new executor begins when this one has ended.
            ref.stop()
        elif warm:
            # The server was not told in time that the run is not kept warm here any more.
            self._epochs.pop(run_id, None)
            self.port.lost(run_id, assignment.claim.epoch, "the run was evicted meanwhile")
            return
        workflow = self._workflow(assignment)
        if workflow is not None:
            self._refs[run_id] = self._executors.start_child(self._spec(workflow, assignment))

    def push(self, run_id: str, entries: tuple[e.Entry, ...]) -> None:
        """Tell the run's executor what happened."""
        ref = self._refs.get(run_id)
        if ref is not None and ref.alive:
            self._tell(ref, entries)

    def drop(self, run_id: str, reason: str) -> None:
        """End an execution whose claim was lost; nothing of it reaches the server."""
        ref = self._refs.get(run_id)
        if ref is not None and ref.alive:
            LOGGER.warning("run %s is given up: %s", run_id, reason)
            ref.stop()

    def cool(self, run_id: str) -> None:
        """Keep a parked run no more: it goes on elsewhere, or has ended."""
        if run_id in self._warm:
            del self._warm[run_id]
            self._evict(run_id)
        elif run_id in self._refs:
            self._cold.add(run_id)  # its executor has not heard yet that it is parked

    def forget_warm(self) -> None:
        """Keep no parked run any more."""
        warm, self._warm = self._warm, OrderedDict[str, None]()
        for run_id in warm:
            self._evict(run_id)

    def _evict(self, run_id: str) -> None:
        self.port.dropped(run_id)
        self._epochs.pop(run_id, None)
        self._cold.discard(run_id)
        ref = self._refs.pop(run_id, None)
        if ref is not None:
            ref.stop()

    def _tell(self, ref: ActorRef[ExecutorMessage], entries: tuple[e.Entry, ...]) -> None:
        """Pass entries on; an executor that does not keep up is given up, and its run replayed."""
        try:
            ref.tell(Entries(entries))
        except MailboxFull as error:
            LOGGER.warning("run %s is given up and claimed again: %s", ref.name, error)
            ref.stop()

    def describe(self) -> str:
        """Return how many runs are here."""
        told = f"{len(self._refs) - len(self._warm)} running, {len(self._warm)} warm"
        abandoned = self._attempts.abandoned_threads
        return f"{told}, {abandoned} threads abandoned" if abandoned else told

    def _workflow(self, assignment: Assignment) -> AnyWorkflow | None:
        body = assignment.entries[0].body
        assert isinstance(body, e.RunCreated), (
            f"run {assignment.run_id} was assigned without its journal and is not warm here"
        )
        return self.registry.resolve(body.workflow, body.version)

    def _spec(self, workflow: AnyWorkflow, assignment: Assignment) -> ChildSpec[ExecutorMessage]:
        return ChildSpec(
            id=assignment.run_id,
            start=lambda: Executor(self._around, workflow, assignment),
            restart=Restart.TEMPORARY,
            shutdown_s=self.settings.shutdown_grace_s,
            mailbox=MailboxPolicy(self.settings.mailbox_max, Overflow.REFUSE),
        )

    def _parked(self, run_id: str, epoch: int) -> None:
        """Keep a parked run warm; if there are too many, evict the one parked longest ago.

        Not one that was assigned again before its executor has heard that it is parked.
        """
        if self._epochs.get(run_id, epoch) > epoch:
            return
        if run_id in self._cold:
            self._evict(run_id)
            return
        ref = self._refs.get(run_id)
        if self._draining and ref is not None:
            # It has parked on its way to being frozen; nothing will wake it here any more.
            ref.stop()
            return
        self._warm[run_id] = None
        self._warm.move_to_end(run_id)
        while len(self._warm) > self.settings.warm_max:
            oldest, _ = self._warm.popitem(last=False)
            self._evict(oldest)

    def _ended(self, ref: ActorRef[ExecutorMessage]) -> None:
        """Forget an executor, unless its run has another one by now."""
        if self._refs.get(ref.name) is ref:
            del self._refs[ref.name]
            self._epochs.pop(ref.name, None)
            self._warm.pop(ref.name, None)
            self._cold.discard(ref.name)
            self.port.dropped(ref.name)


def executors_spec(settings: WorkerSettings, executor_id: str = "executors") -> SupervisorSpec:
    """Describe the supervisor of the executors: none is restarted, a lost run is claimed again."""
    return SupervisorSpec(id=executor_id, children=(), shutdown_s=settings.shutdown_grace_s + 5.0)
