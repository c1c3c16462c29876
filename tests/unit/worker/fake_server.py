"""A server of one run without storage: the real engine, an unkind network, and a world around it.

`FakeServer` is the worker's `ServerPort`. Replies and pushes take their own time, so that one may
overtake the other. `live` executes a run, from any prefix of its journal, with the real subscriber
and executors; what lies outside (timers, events, children, a cancellation) happens by its plan.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import trio
from attrs import Factory, define, field
from trio.testing import MockClock

from aiki_actors import engine as e
from aiki_actors.kernel import ChildSpec, SupervisorSpec, open_system
from aiki_actors.worker import Assignment, Subscriber, WorkerSettings, executors_spec
from aiki_sdk import (
    AnyWorkflow,
    ErrorInfo,
    JsonValue,
    SeededIds,
    SeededRng,
    TrioClock,
    WorkflowRegistry,
    error_from_wire,
)
from aiki_sdk.protocol import RunStatus

RUN_ID = "run_1"
EPOCH_S = 1_767_225_600
WORKER = "worker_1"


@define(eq=False)
class Plan:
    """What happens to the run from outside, at which second after its start.

    Attributes:
        sends: (second, event, data); each is sent once.
        commands: (second, command) of an operator.
        offers: whether a worker takes the run at once when it becomes ready.
        jitter: whether replies and pushes take a random time.

    """

    sends: Sequence[tuple[float, str, int]] = ()
    commands: Sequence[tuple[float, e.Command]] = ()
    warm_max: int = 10
    jitter: bool = True
    seed: int = 0


@define(eq=False)
class FakeServer:
    """The server's side of one run."""

    workflow: AnyWorkflow
    plan: Plan
    rng: random.Random
    nursery: trio.Nursery
    origin: e.Micros
    state: e.RunState = Factory(lambda: e.RunState(RUN_ID))
    journal: list[e.Entry] = Factory(lambda: list[e.Entry]())
    cuts: list[int] = Factory(lambda: list[int]())
    inbox: Subscriber = field(init=False)
    warm: bool = False
    ended: trio.Event = Factory(trio.Event)
    changed: trio.Event = Factory(trio.Event)
    claims: int = 0
    left: bool = False

    def now(self) -> e.Micros:
        return e.Micros(self.origin + round(trio.current_time() * e.SECOND))

    async def _travel(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.plan.jitter:
            for _ in range(self.rng.choice([0, 0, 1, 3])):
                await trio.lowlevel.checkpoint()
            if self.rng.random() < 0.1:
                await trio.sleep(0.001)

    # -- what the worker says --------------------------------------------------------------

    async def submit(
        self, run_id: str, commands: tuple[e.WorkerCommand, ...]
    ) -> tuple[e.Entry, ...]:
        made: tuple[e.Entry, ...] = ()
        with trio.CancelScope(shield=True):
            made += await self._submit(commands)
        return made

    async def _submit(self, commands: tuple[e.WorkerCommand, ...]) -> tuple[e.Entry, ...]:
        # What a worker says arrives in the order in which it was said.
        await trio.lowlevel.checkpoint()
        made: list[e.Entry] = []
        for command in commands:
            decided = self._decide(cast("e.Command", command))
            if isinstance(decided, e.Rejected):
                if made:
                    self._commit(made, pushed=made)
                raise error_from_wire(decided.code, decided.message, decided.details)
            made.extend(decided)
        self._commit(made)
        await self._travel()
        return tuple(made)

    async def reclaim(self, run_id: str) -> None:
        await self._travel()
        self.do(e.UnparkRun())

    def lost(self, run_id: str, epoch: int, reason: str) -> None:
        self.nursery.start_soon(self._do_later, e.LoseClaim(epoch, reason))

    def progress(self, run_id: str, kind: str, body: Mapping[str, JsonValue]) -> None:
        """Nobody watches."""

    def join(self) -> None:
        self.left = False

    def leave(self) -> None:
        self.left = True

    def dropped(self, run_id: str) -> None:
        self.warm = False

    # -- what the server does ----------------------------------------------------------------

    def do(self, command: e.Command) -> e.Decision:
        """Carry a command out and push what it made, as a run actor does."""
        decided = self._decide(command, offer=True)
        if not isinstance(decided, e.Rejected):
            self._commit(decided, pushed=decided)
            return tuple(entry.body for entry in decided)
        return decided

    async def _do_later(self, command: e.Command) -> None:
        await self._travel()
        self.do(command)

    def _decide(
        self, command: e.Command, *, offer: bool = False
    ) -> tuple[e.Entry, ...] | e.Rejected:
        claim = None
        if offer and not self.left and self.rng.random() < 0.7:
            self.claims += 1
            claim = e.ClaimOffer(WORKER, f"claim_{self.claims}_{self.rng.random()}")
        self._holder = self.state.claim is not None
        decision = e.decide(self.state, command, self.now(), offer=claim)
        if isinstance(decision, e.Rejected):
            return decision
        made: list[e.Entry] = []
        for body in decision:
            entry = e.Entry(self.state.seq + 1, self.now(), body)
            self.state = e.evolve(self.state, entry)
            made.append(entry)
        self.journal.extend(made)
        return tuple(made)

    _holder: bool = field(default=False, init=False)

    def _commit(self, made: Sequence[e.Entry], pushed: Sequence[e.Entry] = ()) -> None:
        if made and not self.ended.is_set():
            # A failed run still hears how its children end: a crash after its end means nothing.
            self.cuts.append(self.state.seq)
        if pushed and self._holder:
            self.nursery.start_soon(self._push, tuple(pushed))
        for entry in made:
            match entry.body:
                case e.RunParked():
                    self.warm = True
                case e.ChildStarted():
                    self.nursery.start_soon(self._child, entry.body)
                case e.RunClaimed():
                    self.nursery.start_soon(self._assign, self.state.claim, self.warm)
                case _:
                    pass
        if self.state.ready:
            self.nursery.start_soon(self._claim)
        if self.state.phase.terminal or self.state.phase is e.Phase.STALLED:
            self.ended.set()
        self.changed.set()
        self.changed = trio.Event()

    async def _push(self, entries: tuple[e.Entry, ...]) -> None:
        await self._travel()
        self.inbox.push(RUN_ID, entries)

    async def _claim(self) -> None:
        await self._travel()
        if self.state.ready and not self.left:
            self.claims += 1
            self.do(e.ClaimRun(WORKER, f"claim_{self.claims}_{self.rng.random()}"))

    async def _assign(self, claim: e.Claim | None, warm: bool) -> None:
        assert claim is not None
        await self._travel()
        first = 0
        if warm:
            first = max(en.seq for en in self.journal if isinstance(en.body, e.RunParked))
        if self.left:
            return
        self.inbox.assign(Assignment(RUN_ID, claim.ref, tuple(self.journal[first:])))

    # -- the world ---------------------------------------------------------------------------

    async def world(self) -> None:
        """Make what is planned happen, unless the journal says that it did already."""
        self.nursery.start_soon(self._timers)
        self.nursery.start_soon(self._operators)
        for child_id in self.state.live_children:
            body = next(
                en.body
                for en in self.journal
                if isinstance(en.body, e.ChildStarted) and en.body.child_id == child_id
            )
            self.nursery.start_soon(self._child, body)
        begun = self.state.created_at
        for number, (second, name, data) in enumerate(self.plan.sends):
            await trio.sleep(max(0.0, (begun - self.now()) / e.SECOND + second))
            self.do(e.AcceptEvent(name, data, f"plan-{number}"))
        extra = 0
        while True:
            # Nothing more is planned: whoever still waits for an event gets one, so that all ends.
            event = self.changed
            with trio.move_on_after(3):
                await event.wait()
                continue
            for wait in list(self.state.waits.values()):
                if wait.kind == "event":
                    extra += 1
                    self.do(e.AcceptEvent(wait.name, 100 + extra))
                    break

    async def _operators(self) -> None:
        done = sum(
            isinstance(en.body, e.CancelRequested | e.RunPaused | e.RunResumed)
            for en in self.journal
        )
        begun = self.state.created_at
        for second, command in list(self.plan.commands)[done:]:
            await trio.sleep(max(0.0, (begun - self.now()) / e.SECOND + second))
            self.do(command)

    async def _timers(self) -> None:
        while True:
            event, due = self.changed, e.next_due(self.state)
            with trio.move_on_after(float("inf")) as scope:
                if due is not None:
                    scope.deadline = trio.current_time() + max(0, due - self.now()) / e.SECOND
                await event.wait()
                continue
            if due is not None and due <= self.now():
                self.do(e.Elapse())

    async def _child(self, body: e.ChildStarted) -> None:
        data: Any = body.spec.input
        await trio.sleep(data["ticks"] * 0.1)
        status = RunStatus.FAILED if data["fails"] else RunStatus.COMPLETED
        error = ErrorInfo(type="Broken", message="broken") if data["fails"] else None
        output = None if data["fails"] else data["n"]
        await self._travel()
        self.do(e.EndChild(body.child_id, status, output, error))


@define(eq=False)
class Life:
    """How one life of a run went: its journal so far, and where it may be cut.

    Attributes:
        journal: all of it; children of a failed run may have ended after the run.
        cuts: the seq after each change; the last is that of the change that ended the run.

    """

    journal: tuple[e.Entry, ...]
    cuts: tuple[int, ...]
    state: e.RunState

    @property
    def before_end(self) -> tuple[e.Entry, ...]:
        """The journal without the change that ended the run, and what came after it."""
        return self.journal[: self.cuts[-2] if len(self.cuts) > 1 else 0]


class Hang(AssertionError):
    """The run did not end, and nothing of it will ever happen."""


def created(workflow: AnyWorkflow, args: tuple[Any, ...]) -> e.RunCreated:
    data, digest = workflow.encode_input(args, {})
    return e.RunCreated(
        namespace="default",
        workflow=workflow.name,
        version=workflow.version,
        input=data,
        input_hash=digest,
        retry=workflow.settings.retry.to_json(),
        cancel_grace=e.Micros(round(workflow.settings.cancel_grace_s * e.SECOND)),
        events=tuple(workflow.events),
    )


def live(
    workflow: AnyWorkflow,
    args: tuple[Any, ...],
    plan: Plan,
    *,
    journal: Sequence[e.Entry] = (),
    cuts: Sequence[int] = (),
    life: int = 0,
) -> Life:
    """Execute a run until it has ended, from its beginning or from a prefix of its journal."""

    async def main() -> Life:
        async with trio.open_nursery() as nursery:
            server = await _begin(workflow, args, plan, journal, cuts, life, nursery)
            executors = executors_spec(WorkerSettings(), "executors")

            def subscriber() -> Subscriber:
                server.inbox = Subscriber(
                    WORKER,
                    WorkflowRegistry([workflow]),
                    WorkerSettings(warm_max=plan.warm_max),
                    server,
                    TrioClock(datetime.fromtimestamp(server.origin / e.SECOND, UTC)),
                    SeededIds(f"{plan.seed}/{life}"),
                    SeededRng(plan.seed),
                    "executors",
                )
                return server.inbox

            spec = SupervisorSpec(children=(executors, ChildSpec("subscriber", subscriber)))
            with trio.move_on_after(300) as patience:
                async with open_system("worker", spec, rng=random.Random(plan.seed)):
                    await trio.testing.wait_all_tasks_blocked()
                    if journal and server.state.claim is not None:
                        server.do(e.LoseClaim(server.state.epoch, "its worker was killed"))
                    elif not journal:
                        server.do(e.CreateRun(created(workflow, args)))
                    elif server.state.ready:
                        nursery.start_soon(server._claim)
                    nursery.start_soon(server.world)
                    await server.ended.wait()
                    await trio.sleep(1)
            nursery.cancel_scope.cancel()
            if patience.cancelled_caught:
                tail = "\n".join(f"{en.seq} {en.body}" for en in server.journal[-12:])
                raise Hang(f"the run hangs in {server.state.phase}:\n{tail}")
            return Life(tuple(server.journal), tuple(server.cuts), server.state)
        raise AssertionError("unreachable")

    return trio.run(main, clock=MockClock(autojump_threshold=0))


async def _begin(
    workflow: AnyWorkflow,
    args: tuple[Any, ...],
    plan: Plan,
    journal: Sequence[e.Entry],
    cuts: Sequence[int],
    life: int,
    nursery: trio.Nursery,
) -> FakeServer:
    origin = journal[-1].at if journal else e.Micros(EPOCH_S * e.SECOND)
    server = FakeServer(workflow, plan, random.Random(f"{plan.seed}/{life}"), nursery, origin)
    server.journal = list(journal)
    server.cuts = [cut for cut in cuts if cut <= len(journal)]
    server.state = e.fold(RUN_ID, journal)
    await trio.lowlevel.checkpoint()
    return server
