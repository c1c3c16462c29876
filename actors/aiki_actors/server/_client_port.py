"""The server's side of `ClientPort`: what clients ask, carried out by run actors and storage.

Bound to one namespace: a run of another one is not found, whatever is asked of it. Nothing is
decided here; requests become commands, answers become wire views.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import trio
from attrs import define, evolve

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.queue import QueueKey
from aiki_actors.storage import RunFilter, Storage, micros_of
from aiki_sdk import (
    AikiError,
    Ids,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    ReferenceConflict,
    UnknownWorkflow,
)
from aiki_sdk._question import mailbox_of_question
from aiki_sdk._workflow import OnDivergence
from aiki_sdk.protocol import (
    BATCH_MAX,
    ControlCommand,
    ControlRequest,
    EventReceipt,
    ForkRequest,
    Health,
    HealthStatus,
    JournalEntry,
    OnConflict,
    Outcome,
    Priority,
    Problem,
    RunInfo,
    RunPage,
    RunQuery,
    SendRequest,
    StartRequest,
    StartResult,
    UpdateQuery,
    WorkflowDefinition,
    WorkflowInfo,
)

from ._catalogue import WorkflowCatalogue
from ._hub import Hub
from ._known_input import checked_input, mailboxes
from ._run_actor import ReferenceHeld
from ._runs import Runs
from ._unserved import Unserved
from ._updates import RunUpdates
from ._views import journal_entry, run_summary
from ._watch import RunsWatch

_COMMANDS: Final[dict[ControlCommand, Callable[[ControlRequest], e.Command]]] = {
    ControlCommand.CANCEL: lambda request: e.CancelRun(request.reason),
    ControlCommand.TERMINATE: lambda request: e.TerminateRun(request.reason),
    ControlCommand.PAUSE: lambda request: e.PauseRun(request.reason),
    ControlCommand.RESUME: lambda _request: e.ResumeRun(),
    ControlCommand.WAKE: lambda request: e.WakeRun(request.sleep),
    ControlCommand.REQUEUE: lambda _request: e.RequeueRun(),
    ControlCommand.RETRY: lambda _request: e.RetryRun(),
}


T = TypeVar("T")

TOLD_AT_ONCE_MAX: Final = 64
"""Runs told at the same time by one request: a batch must not crowd everybody else out."""


@define(eq=False)
class ServerClientPort:
    """One namespace of this server, as its clients see it.

    Attributes:
        is_served: whether a worker that is connected can be given such a run.
        problems: what does not work although the server does, in words, by component.

    """

    namespace: str
    catalogue: WorkflowCatalogue
    storage: Storage
    runs: Runs
    hub: Hub[Outcome]
    ids: Ids
    now: Callable[[], e.Micros]
    is_served: Callable[[QueueKey], bool]
    version: str = ""
    on_divergence: OnDivergence = "fail"
    problems: Callable[[], dict[str, str]] = dict

    async def start(self, request: StartRequest) -> StartResult:
        """Start a run, or find the one that the reference id names; see `ClientPort.start`."""
        known = await self._known(request)
        code = self.catalogue.code(known.name, known.version)
        data, digest = checked_input(code, known, request.input, request.input_hash)
        spec = self._spec(known, evolve(request, input=data, input_hash=digest))
        run_id = self.ids.run_id()
        try:
            fault_point("start.received")
            await self.runs.do(run_id, e.CreateRun(spec), fresh=True)
        except ReferenceHeld as held:
            return await self._settle_conflict(request, spec, held)
        fault_point("start.committed")
        return StartResult(run_id)

    async def _known(self, request: StartRequest) -> WorkflowDefinition:
        """Return what is known of the workflow; if nothing is, what the request brought along."""
        try:
            return self.catalogue.resolve(self.namespace, request.workflow, request.version)
        except UnknownWorkflow:
            if request.definition is None:
                raise
        await self.catalogue.announce(self.namespace, [request.definition])
        return request.definition

    def _spec(self, known: WorkflowDefinition, request: StartRequest) -> e.RunCreated:
        """Copy what holds for the run: the request's word, else the workflow's own."""
        start_at: e.Micros | None = None
        if request.at is not None:
            start_at = micros_of(request.at)
        elif request.delay_s:
            start_at = e.Micros(self.now() + round(request.delay_s * e.SECOND))
        timeout_s = known.timeout_s if request.timeout_s is None else request.timeout_s
        return e.RunCreated(
            namespace=self.namespace,
            workflow=known.name,
            version=known.version,
            input=request.input,
            input_hash=request.input_hash,
            reference_id=request.reference_id,
            pool=request.pool or known.pool,
            priority=Priority(request.priority or known.priority),
            labels=dict(request.labels),
            retry=known.retry if request.retry is None else request.retry,
            timeout=None if timeout_s is None else e.Micros(round(timeout_s * e.SECOND)),
            start_at=start_at,
            cancel_grace=e.Micros(round(known.cancel_grace_s * e.SECOND)),
            stall_on_divergence=(known.on_divergence or self.on_divergence) == "stall",
            events=mailboxes(known),
        )

    async def _settle_conflict(
        self, request: StartRequest, spec: e.RunCreated, held: ReferenceHeld
    ) -> StartResult:
        """Apply `on_conflict` to the run that holds the reference id."""
        existing_id = held.taken.run_id
        same_input = held.taken.input_hash == spec.input_hash
        if request.on_conflict is OnConflict.RESTART_IF_ENDED:
            row = await self.storage.run(existing_id)
            if row is not None and row.status.terminal:
                run_id = self.ids.run_id()
                create = e.CreateRun(spec)
                await self.runs.do(run_id, create, fresh=True, supersedes=existing_id)
                return StartResult(run_id)
        if same_input or request.on_conflict is OnConflict.RETURN_EXISTING:
            return StartResult(existing_id, created=False)
        message = (
            f"reference id {request.reference_id!r} of workflow {spec.workflow!r} names run "
            f"{existing_id}, which was started with another input; use another reference id, or "
            "on_conflict='return_existing'"
        )
        raise ReferenceConflict(message, details={"run_id": existing_id})

    async def start_many(self, requests: Sequence[StartRequest]) -> Sequence[StartResult | Problem]:
        """Start many runs; each succeeds or fails by itself."""
        if len(requests) > BATCH_MAX:
            raise LimitExceeded(
                "starts in one batch", BATCH_MAX, len(requests), "send them in parts"
            )
        results: list[StartResult | Problem | None] = [None] * len(requests)

        async def start_one(number: int, request: StartRequest) -> None:
            try:
                results[number] = await self.start(request)
            except AikiError as error:
                results[number] = Problem.from_error(error)

        async with trio.open_nursery() as nursery:
            for number, request in enumerate(requests):
                nursery.start_soon(start_one, number, request)
        return [result for result in results if result is not None]

    async def get(self, run_id: str) -> RunInfo:
        """Return what is known of a run."""
        info = await self.runs.view(run_id)
        if info is None or info.namespace != self.namespace:
            raise self._not_found(run_id)
        return info

    def _not_found(self, run_id: str) -> NotFound:
        message = f"run {run_id} does not exist in namespace {self.namespace!r}"
        return NotFound(message, details={"run_id": run_id})

    async def find(self, workflow: str, reference_id: str) -> RunInfo:
        """Return the run that holds a reference id now."""
        row = await self.storage.find(self.namespace, workflow, reference_id)
        if row is None:
            message = (
                f"no run of workflow {workflow!r} has reference id {reference_id!r} in namespace "
                f"{self.namespace!r}"
            )
            raise NotFound(message)
        return await self.get(row.run_id)

    def _filter(self, query: RunQuery) -> RunFilter:
        return RunFilter(
            namespace=self.namespace,
            status=query.status or None,
            workflow=query.workflow,
            version=query.version,
            reference_id=query.reference_id,
            parent_id=query.parent_id,
            labels=tuple(query.labels.items()),
            created_after=query.created_after,
            created_before=query.created_before,
            query=query.query,
        )

    async def list(self, query: RunQuery) -> RunPage:
        """Return a page of the runs that match, the newest first."""
        where, unserved = self._filter(query), Unserved(self.storage, self.is_served)
        read = unserved.page if query.undeliverable else self.storage.runs
        page = await read(where, limit=query.limit, cursor=query.cursor)
        return RunPage(tuple(run_summary(row) for row in page.runs), page.cursor)

    async def count(self, query: RunQuery) -> int:
        """Count the runs that match."""
        where = self._filter(query)
        if query.undeliverable:
            return await Unserved(self.storage, self.is_served).count(where)
        return await self.storage.count(where)

    async def journal(self, run_id: str, *, after: int, limit: int) -> Sequence[JournalEntry]:
        """Return the entries with seq above `after`, in order, at most `limit`."""
        row = await self.storage.run(run_id)
        if row is None or row.namespace != self.namespace:
            raise self._not_found(run_id)
        entries = await self.storage.journal(run_id, after=after, limit=limit)
        return [journal_entry(entry) for entry in entries]

    async def result(self, run_id: str, *, wait_s: float | None) -> Outcome | None:
        """Wait for a run's end; it is pushed, not polled."""
        with self.hub.waiter(run_id) as waiter:
            outcome = await self._outcome(run_id)
            if outcome is not None or waiter.outcome is not None or wait_s == 0:
                return outcome or waiter.outcome
            if wait_s is None:
                return await waiter.wait()
            with trio.move_on_after(wait_s):
                return await waiter.wait()
        return None

    async def _outcome(self, run_id: str) -> Outcome | None:
        if not self.runs.is_active(run_id):
            row = await self.storage.run(run_id)
            if row is None or row.namespace != self.namespace:
                raise self._not_found(run_id)
            if not row.status.terminal:
                return None
        ending = await self.runs.ending(run_id)
        if ending is None or ending.namespace != self.namespace:
            raise self._not_found(run_id)
        return ending.outcome

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:
        """Acknowledge an event or a question for a run."""
        name = mailbox_of_question(request.event) if request.question else request.event
        command = e.AcceptEvent(name, request.data, request.reference_id)
        entries = await self.runs.do(run_id, command, namespace=self.namespace)
        fault_point("event.committed")
        if not entries:
            return EventReceipt(None, duplicate=True)
        return EventReceipt(entries[0].seq)

    async def control(self, run_id: str, request: ControlRequest) -> None:
        """Do something to a run; repeating what already took effect changes nothing."""
        command = _COMMANDS[request.command](request)
        await self.runs.do(run_id, command, namespace=self.namespace)
        fault_point("control.committed")

    async def send_many(
        self, run_ids: Sequence[str], request: SendRequest
    ) -> Sequence[EventReceipt | Problem]:
        """Send one event to many runs; each gets it or not by itself."""
        return await self._each(run_ids, lambda run_id: self.send(run_id, request))

    async def control_many(
        self, run_ids: Sequence[str], request: ControlRequest
    ) -> Sequence[Problem | None]:
        """Do one thing to many runs; each is done or not by itself."""
        return await self._each(run_ids, lambda run_id: self.control(run_id, request))

    async def _each(
        self, run_ids: Sequence[str], act: Callable[[str], Awaitable[T]]
    ) -> Sequence[T | Problem]:
        """Act on each run, some at a time, and return what came of it, in order."""
        if len(run_ids) > BATCH_MAX:
            raise LimitExceeded("runs in one batch", BATCH_MAX, len(run_ids), "send them in parts")
        limiter = trio.CapacityLimiter(TOLD_AT_ONCE_MAX)
        results: dict[int, T | Problem] = {}

        async def act_on(number: int, run_id: str) -> None:
            async with limiter:
                try:
                    results[number] = await act(run_id)
                except AikiError as error:
                    results[number] = Problem.from_error(error)

        async with trio.open_nursery() as nursery:
            for number, run_id in enumerate(run_ids):
                nursery.start_soon(act_on, number, run_id)
        return [results[number] for number in range(len(run_ids))]

    async def fork(self, run_id: str, request: ForkRequest) -> StartResult:
        """Make a new run of what a run had recorded up to an entry."""
        entries = await self.storage.journal(run_id)
        source = entries[0].body if entries else None
        if not isinstance(source, e.RunCreated) or source.namespace != self.namespace:
            raise self._not_found(run_id)
        if request.at > len(entries):
            message = (
                f"at={request.at} is not valid: the journal of run {run_id} ends with entry "
                f"{len(entries)}; pass the seq of one of its entries"
            )
            raise InvalidRequest(message, details={"run_id": run_id})
        history = e.fork_history(entries, request.at, request.overrides, self.ids.claim_id())
        spec = self._fork_spec(run_id, source, request)
        fork_id = self.ids.run_id()
        await self.runs.do(fork_id, e.ForkRun(spec, history), fresh=True)
        return StartResult(fork_id)

    def _fork_spec(self, run_id: str, source: e.RunCreated, request: ForkRequest) -> e.RunCreated:
        """Return what a fork is created with: nobody's child, without a reference id, at once."""
        version = request.version or source.version
        known = self.catalogue.resolve(self.namespace, source.workflow, version)
        data, digest = source.input, source.input_hash
        if request.input is not None:
            given = request.input_hash or digest
            code = self.catalogue.code(known.name, known.version)
            data, digest = checked_input(code, known, dict(request.input), given)
        return evolve(
            source,
            version=known.version,
            input=data,
            input_hash=digest,
            events=mailboxes(known),
            reference_id=None,
            parent=None,
            depth=0,
            start_at=None,
            continued_from=None,
            forked_from=e.Fork(run_id, request.at),
        )

    def updates(self, run_id: str, *, after: int, wait_s: float | None = None) -> RunUpdates:
        """Open the stream of a run's updates with seq above `after`, past ones first."""
        return RunUpdates(self.storage, self.hub, self.namespace, run_id, after, wait_s)

    def watch(self, query: UpdateQuery) -> RunsWatch:
        """Open a stream of the updates of all runs that a query selects, from now on."""
        return RunsWatch(self.hub, self.namespace, query)

    async def workflows(self) -> Sequence[WorkflowInfo]:
        """Return the workflows that the server knows, by name, then version."""
        known = self.catalogue.all_of(self.namespace)
        return [WorkflowInfo(w.name, w.version, w.events, w.questions) for w in known]

    async def health(self) -> Health:
        """Return how the server is: it works if its database answers, with all else or not."""
        try:
            await self.storage.size_bytes()
        except AikiError as error:
            return Health(HealthStatus.UNAVAILABLE, {"storage": str(error)}, self.version)
        problems = self.problems()
        status = HealthStatus.DEGRADED if problems else HealthStatus.OK
        return Health(status, problems, self.version)

    async def aclose(self) -> None:
        """Nothing to give back: the runtime's scope owns everything."""
        await trio.lowlevel.checkpoint()
