"""Replay: run a workflow's code against a journal without executing anything.

Recorded results are handed to the code as in production; the first thing that the journal does not
know ends the replay. Whether the code may get there at all is decided by the production rules, for
it is the production `Execution` that decides; here only what would *happen* is left out.

A sleep that is not recorded, before calls that are, is passed as if it had elapsed: such an edit is
safe, and what comes after it is worth checking.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import trio
from attrs import Factory, define, field, frozen

from aiki_actors import engine as e
from aiki_actors.worker import (
    Assignment,
    Attempts,
    Branch,
    BranchTracker,
    Execution,
    Executor,
    Record,
    RunEvicted,
    Slot,
)
from aiki_actors.worker._divergence import (
    Sight,
    calling_line,
    divergence,
    named,
    split_address,
    waiting_line,
)
from aiki_actors.worker._executor import Surroundings
from aiki_sdk import (
    AnyTask,
    AnyWorkflow,
    Divergence,
    ErrorInfo,
    InvalidRequest,
    JsonValue,
    RecordedTypeMismatch,
    SeededIds,
    SeededRng,
    TrioClock,
    task_address,
)
from aiki_sdk.protocol import RunStatus, Slept

from ._journal import Journal, load_journal
from ._patience import PATIENCE_S
from ._run import run

HERE: Final = f"{Path(__file__).parent}{os.sep}"
"""The kit's own folder: its frames are not the user's code."""

NO_CLAIM: Final = e.ClaimRef(0, "replay")

LONG: Final = e.Micros(100 * 365 * 86_400 * e.SECOND)
"""As long as any sleep may be: what a sleep that is passed in a replay is said to have taken."""


@frozen
class ReplayOutcome:
    """How a run's code ended, or how its journal says that it did.

    Attributes:
        status: completed, failed or cancelled.
        output: what it returned, as JSON, if it completed.
        error: what it failed with.

    """

    status: RunStatus
    output: JsonValue = None
    error: ErrorInfo | None = None


@frozen
class ReplayReport:
    """What a replay found; that there is one means that the code fits the journal.

    Attributes:
        run_id: the run whose journal it was.
        consumed: how many recorded calls the code asked for.
        remaining: recorded tasks and children that it did not ask for: calls that were removed, or
            come after the point that the replay stopped at.
        stopped_at: the calls that the journal has no result of; empty if the code ended.
        passed: sleeps that are not recorded, and were passed as if they had elapsed.
        outcome: how the code ended; None if the replay stopped before.
        recorded: how the run ended according to its journal; None if it goes on.

    """

    run_id: str
    consumed: int
    remaining: tuple[str, ...]
    stopped_at: tuple[str, ...]
    passed: tuple[str, ...]
    outcome: ReplayOutcome | None
    recorded: ReplayOutcome | None


class NoServer:
    """The server of a replay: there is none, and nothing is asked of it."""

    async def submit(self, run_id: str, commands: tuple[e.WorkerCommand, ...]) -> Any:
        """Refuse; `ReplayExecution` submits nothing."""
        raise AssertionError(f"the replay of run {run_id} tried to submit {commands!r}")

    async def reclaim(self, run_id: str) -> None:
        """Refuse; `ReplayExecution` submits nothing."""
        raise AssertionError(f"the replay of run {run_id} tried to go on by itself")

    def lost(self, run_id: str, epoch: int, reason: str) -> None:
        """Nobody is told."""

    def progress(self, run_id: str, kind: str, body: Mapping[str, JsonValue]) -> None:
        """Nobody watches."""

    def join(self) -> None:
        """Nobody is told."""

    def leave(self) -> None:
        """Nobody is told."""

    def dropped(self, run_id: str) -> None:
        """Nobody is told."""


@define(eq=False)
class ReplayExecution(Execution):
    """An execution in which nothing happens that is not recorded.

    Attributes:
        by_name: take records by kind and name alone, for a journal whose values were replaced.
        stopped: calls that would have happened, and where they were made.
        passed: sleeps that were passed.
        inputs: inputs of the task calls that the code made, by address.

    """

    by_name: bool = False
    stopped: list[tuple[e.Call, str | None]] = Factory(lambda: list[tuple[e.Call, str | None]]())
    passed: list[e.Call] = Factory(lambda: list[e.Call]())
    inputs: dict[str, JsonValue] = Factory(lambda: dict[str, JsonValue]())

    def call_task(
        self, branch: Branch, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Make a task call, and keep its input for the report."""
        data, digest = task.encode_input(args, kwargs)
        self.inputs[task_address(task.name, digest)] = data
        coroutine: Coroutine[Any, Any, Any] = self.call(self, branch, task, args, kwargs)
        return coroutine

    async def resolve(self, slot: Slot) -> Record:
        """Bring a call to its recorded result, or stop."""
        slot.start = self._instead
        if slot.record is None and self.by_name:
            slot.record = self._same_name(slot.call)
        return await super().resolve(slot)

    def _same_name(self, call: e.Call) -> Record | None:
        wanted = split_address(call.address)[:2]
        found = [
            record
            for record in self.replica.records.values()
            if not record.taken and split_address(record.call.address)[:2] == wanted
        ]
        found.sort(key=lambda record: (record.call.branch != call.branch, record.resolved_at))
        return self.replica.take(found[0].call) if found else None

    async def _instead(self, slot: Slot) -> None:
        """Take the place of whatever would make the call happen."""
        await trio.lowlevel.checkpoint()
        if slot.call.address.startswith("sleep:") and self.replica.unconsumed:
            self.passed.append(slot.call)
            seq, at = self.replica.seq, self.last_at
            began = e.SleepStarted(slot.call, LONG, at)
            ended = e.SleepEnded(slot.call, Slept.ELAPSED)
            self.feed((e.Entry(seq + 1, at, began), e.Entry(seq + 2, at, ended)))
            return
        self.stopped.append((slot.call, _line(slot)))
        self.evict()
        raise RunEvicted

    async def submit(self, *build: Callable[[e.ClaimRef], e.WorkerCommand]) -> None:
        """Stop: something would have been journaled."""
        await trio.lowlevel.checkpoint()
        for make in build:
            call: object = getattr(make(NO_CLAIM), "call", None)
            if isinstance(call, e.Call):
                self.stopped.append((call, calling_line(HERE)))
        self.evict()
        raise RunEvicted

    def diverge(self, slots: list[Slot]) -> None:
        """Stop before calls that the journal forbids, with all that a test may show."""
        calls = [(slot.call, _line(slot)) for slot in slots]
        sight = Sight(self.function, self.inputs, values=True)
        self.diverged = divergence(self.run_id, self.replica, calls, sight)
        self.evict()


def _line(slot: Slot) -> str | None:
    """Find where in the user's code a call was made."""
    if slot.task is not None:
        return waiting_line(slot.task, HERE)
    return calling_line(HERE)


def replay(workflow: AnyWorkflow, journal: Journal | Path | str) -> ReplayReport:
    """Check that a workflow's code of today fits the journal of a run; executes no task.

    A plain function, for plain tests; inside Trio it works too, and blocks the loop meanwhile.

    Args:
        workflow: the code.
        journal: the journal, or the path of its file.

    Returns:
        How far the code got. A journal of a run that goes on ends the replay where the run waits.

    Raises:
        Divergence: the code does not fit; the message is a report that says what to do.
        RecordedTypeMismatch: a recorded value does not fit the type that the code declares.
        InvalidRequest: the file holds no journal, or one of another workflow.
        JournalVersionError: a newer release wrote the journal.
    """
    loaded = journal if isinstance(journal, Journal) else load_journal(journal)
    if loaded.workflow != workflow.name:
        message = (
            f"the journal of run {loaded.run_id} is one of workflow {loaded.workflow!r}, not of "
            f"{workflow.name!r}; pass the workflow that the run was started with"
        )
        raise InvalidRequest(message)
    return run(_replay, workflow, loaded)


@define(eq=False)
class _Replaying:
    """One replay."""

    journal: Journal
    executor: Executor
    execution: ReplayExecution
    outcome: ReplayOutcome | None = field(default=None, init=False)

    async def drive(self) -> None:
        """Run the code to its end, or to where the journal ends."""
        outcome = await self.executor.run_code()
        if self.execution.continued is not None:
            self.outcome = ReplayOutcome(RunStatus.COMPLETED)
        elif outcome is not None:
            self.outcome = _meant(outcome(NO_CLAIM))

    def check(self) -> None:
        """Raise what the replay found to be wrong."""
        if self.execution.diverged is not None:
            raise self.execution.diverged
        error = None if self.outcome is None else self.outcome.error
        if error is None:
            return
        if error.code == RecordedTypeMismatch.code:
            raise RecordedTypeMismatch.from_wire(error.message)
        recorded = recorded_outcome(self.journal)
        if recorded is not None and recorded.status is not RunStatus.COMPLETED:
            return
        how = "goes on" if recorded is None else f"ended as {recorded.status}"
        trace = f"\n{error.traceback}" if error.traceback else ""
        message = (
            f"run {self.journal.run_id}: the workflow's code does not fit its journal any more: "
            f"it raised {error} after {_consumed(self.execution)} recorded calls, "
            f"but the recorded run {how}.{trace}"
        )
        raise Divergence(message)

    def report(self) -> ReplayReport:
        """Return what was found."""
        execution = self.execution
        return ReplayReport(
            run_id=self.journal.run_id,
            consumed=_consumed(execution),
            remaining=tuple(named(record.call) for record in execution.replica.left_over()),
            stopped_at=tuple(
                f"{named(call)}{f' at {where}' if where else ''}"
                for call, where in execution.stopped
            ),
            passed=tuple(named(call) for call in execution.passed),
            outcome=self.outcome,
            recorded=recorded_outcome(self.journal),
        )


def _meant(command: e.WorkerCommand) -> ReplayOutcome:
    """Read how the code ended from what the worker would tell the server."""
    match command:
        case e.CompleteRun(output=output):
            return ReplayOutcome(RunStatus.COMPLETED, output)
        case e.FailRun(error=error):
            return ReplayOutcome(RunStatus.FAILED, error=error)
        case e.FinishCancel():
            return ReplayOutcome(RunStatus.CANCELLED)
        case _:
            raise AssertionError(f"code does not end with {command!r}")


async def _replay(workflow: AnyWorkflow, journal: Journal) -> ReplayReport:
    branched = trio.Event()
    tracker = BranchTracker()
    attempts = Attempts(
        TrioClock(datetime(1970, 1, 1, tzinfo=UTC)),
        SeededRng(journal.run_id),
        trio.CapacityLimiter(1),
    )
    execution = ReplayExecution(
        journal.run_id,
        NoServer(),
        tracker,
        attempts.call,
        on_branched=branched.set,
        on_parked=lambda _epoch: None,
        function=workflow.function,
        by_name=journal.scrubbed,
    )
    execution.load(journal.entries)
    # Whether an operator paused the run, and who held it, is nothing to the code.
    execution.frozen = execution.replica.claim = None
    ids = SeededIds(journal.run_id)
    around = Surroundings(
        execution.port,
        attempts,
        tracker,
        ids,
        attempts.rng,
        on_parked=lambda _run_id, _epoch: None,
        on_ended=lambda _ref: None,
    )
    executor = Executor(around, workflow, Assignment(journal.run_id, NO_CLAIM, journal.entries))
    executor.execution = execution
    replaying = _Replaying(journal, executor, execution)

    async def sequence() -> None:
        await branched.wait()
        await execution.sequencer.run()

    trio.lowlevel.add_instrument(tracker)
    try:
        with trio.move_on_after(PATIENCE_S) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sequence)
                await replaying.drive()
                nursery.cancel_scope.cancel()
    finally:
        tracker.unfollow(execution)
        trio.lowlevel.remove_instrument(tracker)
    if patience.cancelled_caught:
        message = (
            f"run {journal.run_id}: after {_consumed(execution)} recorded calls the workflow's "
            "code waits for something that is not durable and never comes; let it wait with run.*"
        )
        raise Divergence(message)
    replaying.check()
    return replaying.report()


def _consumed(execution: Execution) -> int:
    passed = set(execution.passed) if isinstance(execution, ReplayExecution) else set[e.Call]()
    return sum(
        record.taken and record.resolution is not None and call not in passed
        for call, record in execution.replica.records.items()
    )


def recorded_outcome(journal: Journal) -> ReplayOutcome | None:
    """Return how the run ended; None if it had not when its journal was exported."""
    for entry in reversed(journal.entries):
        match entry.body:
            case e.RunCompleted(output):
                return ReplayOutcome(RunStatus.COMPLETED, output)
            case e.RunFailed(error):
                return ReplayOutcome(RunStatus.FAILED, error=error)
            case e.RunCancelled():
                return ReplayOutcome(RunStatus.CANCELLED)
            case e.RunForked() | e.RunWatched() | e.ChildEnded():
                continue  # these may follow an end
            case _:
                return None
    return None
