"""The executor: the actor that runs the code of one claimed run, and keeps it warm while it waits.

Its mailbox takes what the server says about the run (entries), and what the worker wants of it
(freeze). Beside the mailbox run the workflow's code and, if that has branches, the sequencer.
When the code has ended, its outcome is submitted and the actor ends. Whatever ends the actor
otherwise (eviction, a lost claim, shutdown) ends the code without letting it reach the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

import trio
from attrs import define, field, frozen

from aiki_actors import engine as e
from aiki_actors.faults import fault_point
from aiki_actors.kernel import (
    Actor,
    ActorContext,
    ActorRef,
    ActorStopped,
    MailboxFull,
    StopReason,
)
from aiki_sdk import (
    AikiError,
    AnyWorkflow,
    ErrorInfo,
    Ids,
    JsonValue,
    Rng,
    StaleClaim,
    current_workflow,
)
from aiki_sdk._run import Run

from ._attempts import Attempts
from ._branches import Branch, BranchTracker
from ._execution import Execution
from ._operations import Operations
from ._port import Assignment, ServerPort
from ._saga import Saga, retry_of
from ._slots import RunEvicted
from ._speaking import RETRY_FIRST_S, RETRY_MAX_S

LOGGER: Final = logging.getLogger("aiki.worker")

Outcome = Callable[[e.ClaimRef], e.WorkerCommand]
"""How the code ended: the command that says so, under the claim of the moment."""


@frozen
class Entries:
    """Something happened to the run."""

    entries: tuple[e.Entry, ...]


@frozen
class Freeze:
    """Begin nothing new; when nothing happens any more, give the run back."""

    reason: str


@frozen
class Branched:
    """The code has a second branch: its sequencer is needed."""


ExecutorMessage = Entries | Freeze | Branched


@define(eq=False)
class Surroundings:
    """What all executors of one worker share."""

    port: ServerPort
    attempts: Attempts
    tracker: BranchTracker
    ids: Ids
    rng: Rng
    on_parked: Callable[[str, int], None]
    on_ended: Callable[[ActorRef[ExecutorMessage]], None]


@define(eq=False)
class Executor(Actor[ExecutorMessage]):
    """Runs the code of one run."""

    kind: ClassVar[str] = "executor"
    around: Surroundings
    workflow: AnyWorkflow
    assignment: Assignment
    execution: Execution = field(init=False)
    saga: Saga = field(init=False)
    _context: ActorContext[ExecutorMessage] = field(init=False)
    _sequencing: bool = field(default=False, init=False)

    async def started(self, context: ActorContext[ExecutorMessage]) -> None:
        """Take in the journal and begin to run the code."""
        self._context = context
        around = self.around
        self.execution = Execution(
            self.assignment.run_id,
            around.port,
            around.tracker,
            around.attempts.call,
            self._branched,
            lambda epoch: around.on_parked(self.assignment.run_id, epoch),
        )
        self.execution.function = self.workflow.function
        self.execution.background = context.start_soon
        self.execution.load(self.assignment.entries)
        context.start_soon(self._drive)

    def _branched(self) -> None:
        """Ask for the sequencer. Called from a hook of Trio's, which must not raise."""
        try:
            self._context.ref.tell(Branched())
        except ActorStopped:
            return  # the code is unwinding after an eviction, and nothing of it counts
        except MailboxFull as error:
            self.execution.fall_back(str(error))

    async def handle(self, message: ExecutorMessage) -> None:
        """Take in what happened, or what is wanted."""
        match message:
            case Entries(entries):
                self.execution.feed(entries)
            case Freeze(reason):
                self.execution.freeze(reason)
            case Branched():
                if not self._sequencing:
                    self._sequencing = True
                    self._context.start_soon(self.execution.sequencer.run)

    def ending(self) -> None:
        """Turn the actor's end into an eviction, before the code could take it for its run's."""
        self.execution.evict()

    async def stopping(self, reason: StopReason) -> None:
        """Give the claim back if the run was still held; the code has been cancelled by now."""
        execution = self.execution
        execution.tracker.unfollow(execution)
        execution.let_go()
        self.around.on_ended(self._context.ref)
        claim = execution.replica.claim
        if claim is None:
            return
        if reason is StopReason.FAILURE:
            self.around.port.lost(execution.run_id, claim.epoch, "its executor failed")
            return
        fault_point("run.released")
        await self._release(e.ReleaseClaim(execution.released or "shutdown", claim=claim))

    async def _release(self, release: e.ReleaseClaim) -> None:
        """Give the claim back, however long the server cannot write: nobody else would."""
        delay = RETRY_FIRST_S
        while True:
            try:
                await self.around.port.submit(self.execution.run_id, (release,))
            except StaleClaim:
                return
            except AikiError as error:
                LOGGER.warning("run %s is not given back yet: %s", self.execution.run_id, error)
                await trio.sleep(delay)
                delay = min(delay * 2, RETRY_MAX_S)
            else:
                return

    def describe(self) -> str:
        """Return what the code is doing."""
        execution = self.execution
        if execution.replica.claim is None:
            return f"parked at seq {execution.replica.seq}"
        return f"running at seq {execution.replica.seq}, {len(execution.slots)} calls open"

    async def _drive(self) -> None:
        """Run the code to its end and say how it ended."""
        execution = self.execution
        outcome: Outcome | None = None
        with trio.CancelScope(shield=True):  # only an eviction ends it, see `ending`
            outcome = await self.run_code()
        if execution.diverged is not None:
            outcome = self._diverged(execution.diverged)
            LOGGER.error("%s", execution.diverged)
        if execution.continued is not None:
            outcome = self._continued(execution.continued)
        if outcome is not None and not execution.gone:
            if execution.replica.claim is None:
                # The code went on by itself while the run was parked. Saying so takes a claim
                # first, and of an actor that is being stopped nobody would end that wait.
                await trio.lowlevel.checkpoint_if_cancelled()
            await self._say(outcome)
            fault_point("run.ended")
        self._context.stop_self()

    def _diverged(self, error: AikiError) -> Outcome:
        info = ErrorInfo.from_exception(error)
        return lambda claim: e.Diverge(info, claim=claim)

    def _continued(self, spec: e.RunCreated) -> Outcome:
        new_id = self.around.ids.run_id()
        return lambda claim: e.ContinueRun(new_id, spec, claim=claim)

    async def _say(self, outcome: Outcome) -> None:
        """Submit the outcome; nothing else of this execution is submitted after it."""
        execution = self.execution
        execution.evicted = False
        try:
            await execution.submit(outcome)
        except RunEvicted:
            LOGGER.info("run %s ended elsewhere before its outcome", execution.run_id)
        except AikiError as refused:
            LOGGER.warning("run %s: its outcome was refused: %s", execution.run_id, refused)
            error = ErrorInfo.from_exception(refused)
            with suppress(RunEvicted):
                await execution.submit(lambda claim: e.FailRun(error, retryable=False, claim=claim))

    async def run_code(self) -> Outcome | None:
        """Run the workflow function; None when its end means nothing (eviction)."""
        execution = self.execution
        try:
            output = await self._call_function()
        except (trio.Cancelled, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001  (whatever user code raises is its outcome)
            if execution.evicted:
                return None
            return self._failed(error)
        if execution.evicted:
            return None
        if execution.cancelled_at is not None:
            return lambda claim: e.FinishCancel(claim=claim)
        return lambda claim: e.CompleteRun(output, claim=claim)

    async def _call_function(self) -> JsonValue:
        fault_point("run.assigned")
        execution = self.execution
        workflow = self.workflow
        main = Branch(execution)
        self.saga = Saga(execution, main)
        operations = Operations(
            execution, workflow, self.around.ids, self.saga, self.around.attempts.hooks.on_child
        )
        created = execution.replica.created
        assert created is not None, "an assignment begins with RunCreated"

        async def code() -> JsonValue:
            args, kwargs = workflow.decode_input(created.input)
            value = await workflow.function(Run(operations), *args, **kwargs)
            return workflow.encode_output(value)

        token = current_workflow.set(main)
        try:
            with execution.scope:
                return await self.saga.run(code)
        finally:
            current_workflow.reset(token)
        return None

    def _failed(self, error: BaseException) -> Outcome:
        execution = self.execution
        info = ErrorInfo.from_exception(error)
        if execution.cancelled_at is not None:
            return lambda claim: e.FinishCancel(info, claim=claim)
        retry = retry_of(execution.replica.created)
        retryable = isinstance(error, Exception) and retry.retries(error) and not self.saga.undone
        chance = self.around.rng.random()
        return lambda claim: e.FailRun(info, retryable, chance, claim=claim)
