"""A server in memory behind `ClientPort`: it starts runs, keeps their journals, and runs no code.

A test plays the worker: `record` appends an entry, `complete`, `fail` and
`continue_as_new` end a run. Times are made up, one second per entry, so that nothing depends on a
clock; only waiting for a limited time uses Trio's. Faults are switches: see the attributes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeAlias

import trio
from attrs import define, evolve, field, fields

from aiki_sdk import (
    AikiError,
    ErrorInfo,
    IllegalTransition,
    InvalidRequest,
    JsonValue,
    NotFound,
    ReferenceConflict,
    RunEnded,
    Unavailable,
)
from aiki_sdk.protocol import (
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
    RunStatus,
    RunSummary,
    SendRequest,
    StartRequest,
    StartResult,
    Update,
    WorkflowInfo,
)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

# Named here, for inside the class `list` is the method.
Starts: TypeAlias = list[StartRequest]
Sizes: TypeAlias = list[int]
Commands: TypeAlias = list[tuple[str, ControlRequest]]
Forks: TypeAlias = list[tuple[str, ForkRequest]]
Sendings: TypeAlias = list[tuple[str, SendRequest]]


@define(eq=False)
class FakeRun:
    """One run: its row, its journal, and who waits for its next entry."""

    info: RunInfo
    request: StartRequest
    entries: list[JournalEntry] = field(factory=lambda: list[JournalEntry]())
    updates: list[Update] = field(factory=lambda: list[Update]())
    references: dict[tuple[str, str], int] = field(factory=lambda: dict[tuple[str, str], int]())
    changed: trio.Event = field(factory=trio.Event)


@define(eq=False)
class FakePort:
    """See the module.

    Attributes:
        requests: every start that arrived, in order.
        batches: the sizes of the batches that arrived.
        controls: every command that was carried out, with its run.
        sent: every event that was accepted, with its run.
        forks: every fork that was made, with the run that it was made of.
        result_polls: how often `result` was asked.
        open_streams: streams of updates that are open now.
        streams_opened: how many were opened in all.
        stream_length: streams are cut off after so many updates; None: never.
        poll_max_s: `result` waits no longer than this; None: for ever.
        down: what every call but `aclose` raises instead of working, if anything.
        closed: how often it was closed.
    """

    namespace: str = "default"
    runs: dict[str, FakeRun] = field(factory=lambda: dict[str, FakeRun]())
    requests: Starts = field(factory=lambda: Starts())
    batches: Sizes = field(factory=lambda: Sizes())
    controls: Commands = field(factory=lambda: Commands())
    sent: Sendings = field(factory=lambda: Sendings())
    forks: Forks = field(factory=lambda: Forks())
    result_polls: int = 0
    open_streams: int = 0
    streams_opened: int = 0
    stream_length: int | None = None
    poll_max_s: float | None = None
    down: AikiError | None = None
    closed: int = 0

    # --- What a worker would do -------------------------------------------------------------------

    def record(
        self, run_id: str, kind: str, status: RunStatus | None = None, **body: JsonValue
    ) -> int:
        """Append an entry and return its seq."""
        run = self.runs[run_id]
        seq = run.info.seq + 1
        at = EPOCH + timedelta(seconds=seq)
        ended_at = at if status is not None and status.terminal else None
        run.info = evolve(run.info, seq=seq, status=status or run.info.status, ended_at=ended_at)
        run.entries.append(JournalEntry(seq, at, kind, body))
        run.updates.append(
            Update(
                run_id=run_id,
                seq=seq,
                at=at,
                kind=kind,
                status=run.info.status,
                workflow=run.info.workflow,
                reference_id=run.info.reference_id,
                body=body,
            )
        )
        run.changed.set()
        run.changed = trio.Event()
        return seq

    def complete(self, run_id: str, output: JsonValue = None) -> None:
        """End a run with a result."""
        self._change(run_id, output=output)
        self.record(run_id, "run-completed", RunStatus.COMPLETED)

    def fail(self, run_id: str, error: ErrorInfo) -> None:
        """End a run with an error."""
        self._change(run_id, error=error)
        self.record(run_id, "run-failed", RunStatus.FAILED)

    def continue_as_new(self, run_id: str) -> str:
        """End a run and let a new one go on in its place; return the new one's id."""
        new_id = self._create(self.runs[run_id].request)
        self._change(run_id, continued_as=new_id)
        self.record(run_id, "run-completed", RunStatus.COMPLETED)
        return new_id

    def _change(self, run_id: str, **changes: Any) -> None:
        run = self.runs[run_id]
        run.info = evolve(run.info, **changes)

    def _create(self, request: StartRequest) -> str:
        run_id = f"run_{len(self.runs) + 1}"
        info = RunInfo(
            id=run_id,
            namespace=self.namespace,
            workflow=request.workflow,
            version=request.version or "1.0.0",
            status=RunStatus.QUEUED,
            reference_id=request.reference_id,
            pool=request.pool or "default",
            priority=request.priority or Priority.NORMAL,
            labels=request.labels,
            created_at=EPOCH + timedelta(seconds=len(self.runs)),
            input=request.input,
            seq=0,
        )
        self.runs[run_id] = FakeRun(info, request)
        self.record(run_id, "run-created")
        self.record(run_id, "run-queued")
        return run_id

    def _run(self, run_id: str) -> FakeRun:
        self._check()
        run = self.runs.get(run_id)
        if run is None:
            message = f"there is no run {run_id} in namespace {self.namespace!r}"
            raise NotFound(message)
        return run

    def _check(self) -> None:
        if self.down is not None:
            raise self.down
        if self.closed:
            message = "the port is closed"
            raise Unavailable(message)

    # --- ClientPort -------------------------------------------------------------------------------

    async def start(self, request: StartRequest) -> StartResult:
        self._check()
        self.requests.append(request)
        if request.reference_id is not None:
            held = self._held(request.workflow, request.reference_id)
            ended = held is not None and held.info.status.terminal
            if held is not None and not (
                ended and request.on_conflict is OnConflict.RESTART_IF_ENDED
            ):
                same = held.request.input_hash == request.input_hash
                if not same and request.on_conflict is not OnConflict.RETURN_EXISTING:
                    message = f"reference {request.reference_id!r} names {held.info.id}"
                    raise ReferenceConflict(message)
                return StartResult(held.info.id, created=False)
        return StartResult(self._create(request))

    async def start_many(self, requests: Sequence[StartRequest]) -> Sequence[StartResult | Problem]:
        self.batches.append(len(requests))
        answers: list[StartResult | Problem] = []
        for request in requests:
            try:
                answers.append(await self.start(request))
            except AikiError as error:
                answers.append(Problem.from_error(error))
        return answers

    def _held(self, workflow: str, reference_id: str) -> FakeRun | None:
        held = [
            run
            for run in self.runs.values()
            if (run.info.workflow, run.info.reference_id) == (workflow, reference_id)
        ]
        return held[-1] if held else None

    async def get(self, run_id: str) -> RunInfo:
        return self._run(run_id).info

    async def find(self, workflow: str, reference_id: str) -> RunInfo:
        self._check()
        run = self._held(workflow, reference_id)
        if run is None:
            message = f"no run of {workflow!r} has reference id {reference_id!r}"
            raise NotFound(message)
        return run.info

    async def list(self, query: RunQuery) -> RunPage:
        self._check()
        matching = self._matching(query)
        if query.cursor is not None and not query.cursor.isdecimal():
            message = f"cursor={query.cursor!r} is not one of this list"
            raise InvalidRequest(message)
        first = int(query.cursor or "0")
        rows = matching[first : first + query.limit]
        last = first + len(rows)
        return RunPage(tuple(map(summary, rows)), str(last) if last < len(matching) else None)

    async def count(self, query: RunQuery) -> int:
        self._check()
        return len(self._matching(query))

    def _matching(self, query: RunQuery) -> Sequence[RunInfo]:
        infos = [run.info for run in reversed(self.runs.values())]
        return [info for info in infos if _matches(info, query)]

    async def journal(self, run_id: str, *, after: int, limit: int) -> Sequence[JournalEntry]:
        return self._run(run_id).entries[after : after + limit]

    async def result(self, run_id: str, *, wait_s: float | None) -> Outcome | None:
        self.result_polls += 1
        run = self._run(run_id)
        limits = [limit for limit in (wait_s, self.poll_max_s) if limit is not None]
        if not run.info.status.terminal and wait_s != 0:
            with trio.move_on_after(min(limits, default=float("inf"))):
                while not run.info.status.terminal:
                    await run.changed.wait()
        if not run.info.status.terminal:
            return None
        info = run.info
        return Outcome(
            status=info.status,
            output=info.output,
            error=info.error,
            reason=info.reason,
            continued_as=info.continued_as,
            terminated=info.terminated,
        )

    async def send(self, run_id: str, request: SendRequest) -> EventReceipt:
        run = self._run(run_id)
        if run.info.status.terminal:
            raise RunEnded("send an event", run.info.status, run_id=run_id)
        key = (f"{request.question}{request.event}", request.reference_id or "")
        if request.reference_id is not None and key in run.references:
            return EventReceipt(run.references[key], duplicate=True)
        self.sent.append((run_id, request))
        name = f"?{request.event}" if request.question else request.event
        body: dict[str, JsonValue] = {"name": name, "data": request.data}
        if request.reference_id is not None:
            body["reference_id"] = request.reference_id
        seq = self.record(run_id, "event-accepted", None, **body)
        run.references[key] = seq
        return EventReceipt(seq)

    async def control(self, run_id: str, request: ControlRequest) -> None:
        run = self._run(run_id)
        status = run.info.status
        if status.terminal and request.command is not ControlCommand.RETRY:
            raise RunEnded(request.command, status, run_id=run_id)
        if request.command is ControlCommand.RETRY and status is not RunStatus.FAILED:
            raise IllegalTransition(request.command, status, run_id=run_id)
        self.controls.append((run_id, request))
        if request.command in (ControlCommand.CANCEL, ControlCommand.TERMINATE):
            terminated = request.command is ControlCommand.TERMINATE
            self._change(run_id, reason=request.reason, terminated=terminated)
            self.record(run_id, "run-cancelled", RunStatus.CANCELLED)
        elif request.command is ControlCommand.RETRY:
            self.record(run_id, "run-retried", RunStatus.QUEUED)

    async def send_many(
        self, run_ids: Sequence[str], request: SendRequest
    ) -> Sequence[EventReceipt | Problem]:
        answers: list[EventReceipt | Problem] = []
        for run_id in run_ids:
            try:
                answers.append(await self.send(run_id, request))
            except AikiError as error:
                answers.append(Problem.from_error(error))
        return answers

    async def control_many(
        self, run_ids: Sequence[str], request: ControlRequest
    ) -> Sequence[Problem | None]:
        answers: list[Problem | None] = []
        for run_id in run_ids:
            try:
                await self.control(run_id, request)
                answers.append(None)
            except AikiError as error:
                answers.append(Problem.from_error(error))
        return answers

    async def fork(self, run_id: str, request: ForkRequest) -> StartResult:
        run = self._run(run_id)
        self.forks.append((run_id, request))
        return StartResult(self._create(run.request))

    def updates(
        self, run_id: str, *, after: int, wait_s: float | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
        return FakeStream(self, run_id, after, wait_s)

    async def workflows(self) -> Sequence[WorkflowInfo]:
        self._check()
        return [WorkflowInfo("greet", "1.0.0", ())]

    async def health(self) -> Health:
        self._check()
        return Health(HealthStatus.OK, version="test")

    async def aclose(self) -> None:
        self.closed += 1


@define(eq=False)
class FakeStream:
    """A stream of a run's updates, as `ClientPort.updates` promises it."""

    _port: FakePort
    _run_id: str
    _after: int
    _wait_s: float | None
    _given: int = 0
    _deadline: float = float("inf")

    async def __aenter__(self) -> AsyncIterator[Update]:
        self._port._run(self._run_id)
        if self._wait_s is not None:
            self._deadline = trio.current_time() + self._wait_s
        self._port.open_streams += 1
        self._port.streams_opened += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._port.open_streams -= 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        run = self._port.runs[self._run_id]
        if self._given == self._port.stream_length:
            raise StopAsyncIteration
        if len(run.updates) <= self._after and not run.info.status.terminal:
            with trio.move_on_at(self._deadline):
                while len(run.updates) <= self._after:
                    await run.changed.wait()
        if len(run.updates) <= self._after:
            raise StopAsyncIteration
        update = run.updates[self._after]
        self._after = update.seq
        self._given += 1
        return update


def summary(info: RunInfo) -> RunSummary:
    """Return what a list shows of a run."""
    return RunSummary(
        **{attribute.name: getattr(info, attribute.name) for attribute in fields(RunSummary)}
    )


def _matches(info: RunInfo, query: RunQuery) -> bool:
    return (
        (not query.status or info.status in query.status)
        and query.workflow in (None, info.workflow)
        and query.version in (None, info.version)
        and query.reference_id in (None, info.reference_id)
        and query.parent_id in (None, info.parent_id)
        and query.labels.items() <= info.labels.items()
        and (query.created_after is None or info.created_at >= query.created_after)
        and (query.created_before is None or info.created_at < query.created_before)
        and all(
            word in f"{info.id} {info.workflow} {info.reference_id}".lower()
            for word in (query.query or "").lower().split()
        )
    )
