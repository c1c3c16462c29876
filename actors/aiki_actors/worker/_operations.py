"""What `Run` can do, on top of `Execution.perform`: the executor's side of the SDK's `RunPort`.

Each operation names its call (address, branch, index), says how it happens if it is not recorded,
and turns the record's resolution into what the code is given.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import trio

from aiki_actors import engine as e
from aiki_sdk import (
    CONVERTER,
    ChildFailed,
    ErrorInfo,
    Event,
    Ids,
    JsonValue,
    NotInWorkflow,
    WaitTimeout,
    Workflow,
    child_address,
    current_workflow,
    encode_payload,
)
from aiki_sdk._addresses import child_wait_address, local_address, sleep_address
from aiki_sdk._run import ChildOptions, RunFacts
from aiki_sdk._workflow import OnDivergence
from aiki_sdk.protocol import RunStatus, Slept

from ._branches import Branch
from ._execution import Execution
from ._fan_out import Failures
from ._flow import FlowOperations
from ._messages import MessageOperations
from ._saga import Saga
from ._slots import Slot

T = TypeVar("T")
LOGGER: Final = logging.getLogger("aiki.run")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(at: e.Micros) -> datetime:
    """Convert the engine's time to Python's."""
    return EPOCH + timedelta(microseconds=at)


class Operations(MessageOperations, FlowOperations):
    """The durable operations of one run's code."""

    def __init__(
        self,
        execution: Execution,
        workflow: Workflow[..., Any],
        ids: Ids,
        saga: Saga,
        on_child: Callable[[Workflow[..., Any]], None] | None = None,
    ) -> None:
        """Serve the code of `workflow` that `execution` runs; `on_child` is `WorkerHooks`'."""
        self._execution = execution
        self._workflow = workflow
        self._ids = ids
        self._saga = saga
        self._on_child = on_child
        replica = execution.replica
        spec = replica.created
        assert spec is not None, f"run {execution.run_id} is executed without its RunCreated"
        self._spec = spec
        self._facts = RunFacts(
            id=execution.run_id,
            name=spec.workflow,
            version=spec.version,
            reference_id=spec.reference_id,
            parent_id=None if spec.parent is None else spec.parent.run_id,
            attempt=replica.attempt,
            started_at=to_datetime(replica.created_at),
        )
        self._logger: RunLogger | None = None

    @property
    def facts(self) -> RunFacts:
        """The run's facts."""
        return self._facts

    @property
    def replaying(self) -> bool:
        """Whether recorded results that the code has not asked for yet are left."""
        return self._execution.replaying

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """The run's logger."""
        if self._logger is None:
            self._logger = RunLogger(self._execution)
        return self._logger

    def _branch(self, what: str) -> Branch:
        branch = current_workflow.get()
        if isinstance(branch, Branch) and branch.execution is self._execution:
            return branch
        message = (
            f"{what} was called outside the code of run {self._execution.run_id}; call it in the "
            "workflow function itself, not in a task, a thread or another run"
        )
        raise NotInWorkflow(message)

    # -- waits ------------------------------------------------------------------------------

    async def sleep(self, name: str, micros: int) -> Slept:
        """Sleep durably; a longer time than was recorded is slept on once, a shorter is enough."""
        execution = self._execution
        call = self._branch("run.sleep").next_call(sleep_address(name))
        duration = e.Micros(micros)

        async def start(slot: Slot) -> None:
            began = slot.record.start if slot.record is not None else None
            slept = slot.record.slept if slot.record is not None else 0
            if isinstance(began, e.SleepStarted) and duration - slept >= began.duration:
                await execution.begin_wait(slot, None)
            else:
                await execution.begin_wait(
                    slot, lambda claim: e.StartSleep(slot.call, duration, claim=claim)
                )

        record = await execution.perform(call, start, free=True)
        while True:
            body = record.resolution
            assert isinstance(body, e.SleepEnded), f"sleep {call} ended with {body!r}"
            if body.outcome is Slept.WOKEN or record.slept >= duration:
                return body.outcome
            record.start = record.resolution = None
            record = await execution.resolve(Slot(record.call, record, start, free=True))

    async def wait(self, event: Event[T], micros: int | None) -> T:
        """Take the next unread item of an event."""
        timeout = None if micros is None else e.Micros(micros)
        taken = await self.take_item("run.wait", event.name, timeout)
        if taken is None:
            message = f"event {event.name!r} did not come within {(micros or 0) / e.SECOND:g} s"
            raise WaitTimeout(message)
        return event.decode(self._execution.replica.items[taken.item].data)

    # -- branches ---------------------------------------------------------------------------

    async def gather(self, awaitables: tuple[Awaitable[Any], ...]) -> list[Any]:
        """Await all, each in a branch; the first error, as the journal orders them, is raised."""
        self._branch("run.gather")
        results: list[Any] = [None] * len(awaitables)
        failures = Failures(self._execution)
        async with trio.open_nursery() as nursery:
            for number, awaitable in enumerate(awaitables):
                nursery.start_soon(_collect, awaitable, results, number, failures, nursery)
        failures.raise_first()
        return results

    async def race(self, entries: Mapping[str, Awaitable[Any]]) -> tuple[str, Any]:
        """Await the first of them; of several that end in one step, the one named first wins."""
        self._branch("run.race")
        results: list[Any] = [_PENDING] * len(entries)
        errors: dict[int, Exception] = {}
        finished = trio.Event()

        async def run(number: int, awaitable: Awaitable[Any]) -> None:
            try:
                results[number] = await awaitable
            except Exception as error:  # noqa: BLE001  (it is raised by the race itself)
                errors[number] = error
            finished.set()

        async with trio.open_nursery() as nursery:
            for number, awaitable in enumerate(entries.values()):
                nursery.start_soon(run, number, awaitable)
            await finished.wait()
            ended = [n for n, value in enumerate(results) if value is not _PENDING or n in errors]
            winner = ended[0]
            nursery.cancel_scope.cancel()
        if winner in errors:
            raise errors[winner]
        return list(entries)[winner], results[winner]

    # -- children ---------------------------------------------------------------------------

    async def start_child(
        self,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: ChildOptions,
    ) -> str:
        """Start a child, once; its id is journaled before it exists."""
        execution = self._execution
        if self._on_child is not None:
            self._on_child(workflow)
        data, digest = workflow.encode_input(args, kwargs)
        name = options.reference_id or digest
        address = child_address(workflow.name, workflow.version, name)
        call = self._branch("run.start_child").next_call(address)

        async def start(slot: Slot) -> None:
            child_id = self._ids.run_id()
            spec = self._child_spec(workflow, data, digest, options)
            await execution.submit(
                lambda claim: e.StartChild(
                    slot.call,
                    child_id,
                    spec,
                    options.on_parent_end,
                    options.on_conflict,
                    claim=claim,
                )
            )

        record = await execution.perform(call, start)
        body = record.resolution
        assert isinstance(body, e.ChildStarted), f"child start {call} ended with {body!r}"
        return body.child_id

    def _child_spec(
        self,
        workflow: Workflow[..., Any],
        data: JsonValue,
        digest: str,
        options: ChildOptions,
    ) -> e.RunCreated:
        settings = workflow.settings
        timeout_s = settings.timeout_s if options.timeout_s is None else options.timeout_s
        return e.RunCreated(
            namespace=self._spec.namespace,
            workflow=workflow.name,
            version=workflow.version,
            input=data,
            input_hash=digest,
            reference_id=options.reference_id,
            parent=e.ParentLink(self._execution.run_id, options.on_parent_end),
            pool=options.pool or settings.pool,
            priority=self._spec.priority,
            labels=options.labels,
            retry=(options.retry or settings.retry).to_json(),
            timeout=None if timeout_s is None else e.Micros(round(timeout_s * e.SECOND)),
            cancel_grace=e.Micros(round(settings.cancel_grace_s * e.SECOND)),
            stall_on_divergence=self._stalls(settings.on_divergence),
            events=workflow.mailboxes,
            depth=self._spec.depth + 1,
        )

    def _stalls(self, on_divergence: OnDivergence | None) -> bool:
        """Say what a child does when it diverges: as its workflow says, else as its parent."""
        if on_divergence is None:
            return self._spec.stall_on_divergence
        return on_divergence == "stall"

    async def child_result(
        self, workflow: Workflow[..., Any], child_id: str, micros: int | None
    ) -> Any:
        """Wait for a child's end, whatever it is, and return its result or raise its failure."""
        execution = self._execution
        call = self._branch("child.result").next_call(child_wait_address(child_id))
        timeout = None if micros is None else e.Micros(micros)

        async def start(slot: Slot) -> None:
            if slot.open_wait:
                await execution.begin_wait(slot, None)
                return
            # The end may be on its way here already: the server then answers with nothing.
            assert slot.record is not None, "a call that begins has a record"
            if slot.resolved or execution.await_child(child_id, slot.record):
                return
            await execution.begin_wait(
                slot, lambda claim: e.AwaitChild(slot.call, child_id, timeout, claim=claim)
            )

        record = await execution.perform(call, start, free=True, child=child_id)
        body = record.resolution
        if isinstance(body, e.WaitTimedOut):
            message = f"child {child_id} did not end within {(micros or 0) / e.SECOND:g} s"
            raise WaitTimeout(message)
        assert isinstance(body, e.ChildEnded), f"child wait {call} ended with {body!r}"
        if body.status is RunStatus.COMPLETED:
            return workflow.decode_output(body.output)
        error = body.error or ErrorInfo(
            type="RunCancelled", message=f"child {child_id} was cancelled", code="run-cancelled"
        )
        raise ChildFailed(error, child=child_id, status=str(body.status))

    # -- small things -----------------------------------------------------------------------

    async def local(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Record the result of a small function."""
        execution = self._execution
        call = self._branch("run.local").next_call(local_address(name, ""))

        async def start(slot: Slot) -> None:
            await execution.begin_timeouts()
            value = function(*args)
            if inspect.isawaitable(value):
                value = await value
            json = encode_payload(value, what=f"result of local {name!r}")
            await execution.submit(lambda claim: e.RecordValue(slot.call, json, claim=claim))

        record = await execution.perform(call, start, free=True)
        body = record.resolution
        assert isinstance(body, e.ValueRecorded), f"local {call} ended with {body!r}"
        return CONVERTER.from_json(body.value, _returned(function))

    def now(self) -> datetime:
        """Return the time of the last result that the code was given."""
        return to_datetime(self._execution.last_at)

    def uuid4(self, name: str | None) -> UUID:
        """Return a UUID derived from the call's own address and branch."""
        return UUID(bytes=self._chance("uuid4", name)[:16], version=4)

    def random(self, name: str | None) -> float:
        """Return a number in [0, 1): 53 bits derived from the call's own address and branch."""
        return (int.from_bytes(self._chance("random", name)[:8], "big") >> 11) / (1 << 53)

    def _chance(self, kind: str, name: str | None) -> bytes:
        call = self._branch(f"run.{kind}").next_call(f"{kind}:{name or ''}")
        return sha256(f"{self._execution.run_id}/{call}".encode()).digest()


_PENDING: Final = object()


async def _collect(
    awaitable: Awaitable[Any],
    results: list[Any],
    number: int,
    failures: Failures,
    nursery: trio.Nursery,
) -> None:
    try:
        results[number] = await awaitable
    except Exception as error:  # noqa: BLE001  (it is raised by the gather itself)
        failures.add(number, error)
        nursery.cancel_scope.cancel()


def _returned(function: Callable[..., Any]) -> Any:
    """Return the type that a function declares to return; anything if it does not say."""
    declared: object = inspect.get_annotations(function).get("return", Any)
    return cast("Any", Any if isinstance(declared, str) else declared)


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Names the run in front of each message; says nothing during replay and after eviction."""

    def __init__(self, execution: Execution) -> None:
        """Log for the run that `execution` executes."""
        super().__init__(LOGGER, {"run_id": execution.run_id})
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  (the standard library's name)
        """Whether a message of this level is wanted now."""
        execution = self._execution
        if execution.replaying or execution.evicted:
            return False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, Any]:
        """Add the run's id."""
        return super().process(f"[{self._execution.run_id}] {msg}", kwargs)
