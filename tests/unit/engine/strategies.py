"""Hypothesis strategies for the engine: every command, and plays that reach real states.

A *play* is a list of moves (a command, how much time passes before it, whether a worker stands
by), carried out one by one through `decide` and `evolve`. Every state that a play reaches is
reachable by construction, so that a property never fails on a state that cannot occur.

Commands are drawn without knowing the state, so that plays shrink well. Where a command must fit
the state, it holds a placeholder (`CURRENT`, `CURRENT_EPOCH`, `EVERY_WAIT`) that is filled in when
it is played. Names, times and calls come from small pools, so that they collide often.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, Final

import attrs
from hypothesis import strategies as st

from aiki_actors import engine as en
from aiki_actors.engine import Call, ClaimRef, Command, Entry, Micros, RunState
from aiki_sdk import ErrorInfo, Retry
from aiki_sdk.protocol import OnParentEnd, Priority, RunStatus

RUN_ID: Final = "run_0"
PARENT_ID: Final = "run_parent"
START: Final = Micros(1_000_000_000)
"""When every play begins."""

CURRENT: Final = ClaimRef(-1, "current")
"""Stands for the claim that is held when the command is played."""
CURRENT_EPOCH: Final = -1
EVERY_WAIT: Final = (Call("every-open-wait"),)
"""Stands for all the waits that are open when the command is played."""

ERROR: Final = ErrorInfo(type="ValueError", message="boom")
SPANS: Final = tuple(map(Micros, (0, 1, 50_000, 100_001, en.SECOND, 60 * en.SECOND)))
"""Durations in microseconds: none, the least, a delay inside the worker, one past it, long ones."""

# Small limits, so that plays reach them; `wait_max` lets every span but the last excess pass.
LIMITS: Final = en.EngineLimits(
    claims_lost_max=3,
    entries_max=60,
    children_max=2,
    depth_max=2,
    wait_max=Micros(3600 * en.SECOND),
    unread_max=6,
)

EVENTS: Final = ("paid", "shipped")
CHILDREN: Final = ("run_a", "run_b", "run_c")
TASKS: Final = tuple(Call(f"task:{name}:9f") for name in ("charge", "render"))
SLEEPS: Final = (
    *(Call(f"sleep:{name}") for name in ("cool-off", "late")),
    Call("sleep:late", "0.1"),
)
TIMEOUTS: Final = (Call("timeout:patience"), Call("timeout:patience", "0.1"))
EVENT_WAITS: Final = tuple(Call(f"event:{name}", index=n) for name in EVENTS for n in range(3))
CHILD_WAITS: Final = tuple(Call(f"wait-child:{child}") for child in CHILDREN)
VALUES: Final = (Call("local:now"), Call("local:flip"))
PUBLISHED: Final = (Call("publish:progress:9f"), Call("publish:progress:a0"))
SENT: Final = (Call("send:run_other:paid:9f"),)
ANSWERS: Final = (Call("answer:1"), Call("answer:2"))
CALLS: Final = (
    *(*TASKS, *SLEEPS, *TIMEOUTS, *EVENT_WAITS, *CHILD_WAITS),
    *(*VALUES, *PUBLISHED, *SENT, *ANSWERS),
)


def spec(**changes: Any) -> en.RunCreated:
    """Make what a run is created with; `changes` name what matters to the test."""
    plain = en.RunCreated("default", "order-processing", "1.0.0", None, "00")
    return attrs.evolve(plain, **changes)


def retry_policy(max_attempts: int, delay_s: float) -> Any:
    """Return a workflow's retry policy as its journal keeps it."""
    return Retry.fixed(max_attempts=max_attempts, delay=delay_s).to_json()


@cache
def policies() -> tuple[Any, ...]:
    """Return retry policies: none, at once, after a while."""
    return (None, retry_policy(3, 0), retry_policy(3, 1))


def specs() -> st.SearchStrategy[en.RunCreated]:
    """Draw what a run is created with."""
    return st.builds(
        spec,
        timeout=st.sampled_from((*[None] * 15, *SPANS[3:])),
        start_at=st.sampled_from((*[None] * 6, START, Micros(START + 50_000))),
        cancel_grace=st.sampled_from(SPANS),
        retry=st.sampled_from(policies()),
        stall_on_divergence=st.booleans(),
        events=st.sampled_from((None, EVENTS)),
        parent=st.sampled_from((None, en.ParentLink(PARENT_ID))),
        priority=st.sampled_from(Priority),
        depth=st.sampled_from((*[0] * 15, 3)),
    )


_CLAIMS: Final = (*[CURRENT] * 12, ClaimRef(1, "stale"), ClaimRef(0, "claim-0"))
_ATTEMPTS: Final = (1, 2, 3)
_OUTPUTS: Final = (None, 1, "done")
_REASONS: Final = (None, "because")
_ENDS: Final = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
_NAMES: Final = (*EVENTS, *EVENTS, "unheard-of")
_TIMEOUTS: Final = (None, *SPANS, Micros(4000 * en.SECOND))
_LENGTHS: Final = (*SPANS, Micros(-1), Micros(4000 * en.SECOND))


def _await_event(call: Call, name: str | None, timeout: Micros | None, *, claim: ClaimRef) -> Any:
    event = name or call.address.removeprefix("event:")
    return en.AwaitEvent(call, event, timeout, claim=claim)


def _await_child(child_id: str, timeout: Micros | None, *, claim: ClaimRef) -> Any:
    return en.AwaitChild(Call(f"wait-child:{child_id}"), child_id, timeout, claim=claim)


def _start_child(child_id: str, policy: OnParentEnd, depth: int, *, claim: ClaimRef) -> Any:
    created = spec(parent=en.ParentLink(RUN_ID, policy), depth=depth)
    return en.StartChild(Call(f"child:{child_id}"), child_id, created, policy, claim=claim)


_HISTORY: Final = (
    en.RunClaimed(en.FORK_WORKER, 1, "fork-claim"),
    en.TaskSucceeded(TASKS[0], 1, "kept"),
    en.ClaimReleased("fork"),
)
"""What a fork begins with, short of its start."""


def _asked(make: Callable[..., Any], *pools: Sequence[Any]) -> list[Any]:
    """Make every command that a client can say, over the product of what its fields can be."""
    return [make(*values) for values in product(*pools)]


def _said(make: Callable[..., Any], *pools: Sequence[Any]) -> list[Any]:
    """Make every command that a worker can say, under every claim."""
    return [make(*values, claim=claim) for values in product(*pools) for claim in _CLAIMS]


@cache
def every_command() -> Mapping[type[Any], Sequence[Any]]:
    """Return for each command of the union all that is ever drawn of it."""
    specs_again = (spec(), spec(events=EVENTS), spec(timeout=SPANS[-1]), spec(depth=3))
    return {
        en.CreateRun: _asked(en.CreateRun, specs_again),
        en.ForkRun: _asked(en.ForkRun, specs_again, (_HISTORY,)),
        en.AcceptEvent: _asked(en.AcceptEvent, _NAMES, _OUTPUTS, (None, None, "ref-1", "ref-2")),
        en.PauseRun: _asked(en.PauseRun, _REASONS),
        en.ResumeRun: _asked(en.ResumeRun),
        en.CancelRun: _asked(en.CancelRun, _REASONS, (None, PARENT_ID)),
        en.TerminateRun: _asked(en.TerminateRun, _REASONS),
        en.WakeRun: _asked(en.WakeRun, (None, "late", "nothing")),
        en.RetryRun: _asked(en.RetryRun),
        en.RequeueRun: _asked(en.RequeueRun),
        en.Elapse: _asked(en.Elapse),
        en.ClaimRun: _asked(en.ClaimRun, ("wrk_1", "wrk_2"), ("claim-0", "claim-1")),
        en.UnparkRun: _asked(en.UnparkRun),
        en.LoseClaim: _asked(en.LoseClaim, (CURRENT_EPOCH, CURRENT_EPOCH, 1), ("gone",)),
        en.StallRun: _asked(en.StallRun, ("nobody serves it",)),
        en.NoteFork: _asked(en.NoteFork, ("run_fork",), (1, 3)),
        en.WatchRun: _asked(en.WatchRun, ("run_watcher",), ("run_linked", "run_linked_2")),
        en.EndChild: _asked(en.EndChild, CHILDREN, _ENDS, _OUTPUTS, (None, ERROR)),
        en.RecordSuccess: _said(en.RecordSuccess, TASKS, _ATTEMPTS, _OUTPUTS),
        en.RecordFailure: _said(en.RecordFailure, TASKS, _ATTEMPTS, (ERROR,), (None, *SPANS)),
        en.RecordStart: _said(en.RecordStart, TASKS, _ATTEMPTS),
        en.RecordHeartbeat: _said(en.RecordHeartbeat, TASKS, _ATTEMPTS, _OUTPUTS),
        en.StartSleep: _said(en.StartSleep, SLEEPS, _LENGTHS),
        en.StartTimeout: _said(en.StartTimeout, TIMEOUTS, _LENGTHS),
        en.AwaitEvent: _said(_await_event, EVENT_WAITS, (*[None] * 4, "unheard-of"), _TIMEOUTS),
        en.AwaitChild: _said(_await_child, CHILDREN, _TIMEOUTS),
        en.AbandonWait: _said(en.AbandonWait, CALLS),
        en.StartChild: _said(_start_child, CHILDREN, tuple(OnParentEnd), (1, 1, 1, 3)),
        en.RecordValue: _said(en.RecordValue, VALUES, _OUTPUTS),
        en.PublishValue: _said(en.PublishValue, PUBLISHED, ("progress", "eta"), _OUTPUTS),
        en.SendEvent: _said(en.SendEvent, SENT, ("run_other",), EVENTS, _OUTPUTS),
        en.AnswerQuestion: _said(en.AnswerQuestion, ANSWERS, (1, 3), _OUTPUTS, (None, "no")),
        en.ContinueRun: _said(en.ContinueRun, ("run_next",), (spec(continued_from=RUN_ID),)),
        en.ParkRun: _said(en.ParkRun, (*[EVERY_WAIT] * 8, (), CALLS[-1:]), (True, False)),
        en.ReleaseClaim: _said(en.ReleaseClaim, ("shutdown",)),
        en.CompleteRun: _said(en.CompleteRun, _OUTPUTS),
        en.FailRun: _said(en.FailRun, (ERROR,), (True, False), (0.0, 0.5, 1.0)),
        en.Diverge: _said(en.Diverge, (ERROR,)),
        en.FinishCancel: _said(en.FinishCancel, (None, ERROR)),
    }


def commands() -> st.SearchStrategy[Command]:
    """Draw any command of the union, each kind as often as the others."""
    return st.one_of(*map(st.sampled_from, every_command().values()))


def one_of_each() -> st.SearchStrategy[tuple[Command, ...]]:
    """Draw one command of every kind."""
    return st.tuples(*map(st.sampled_from, every_command().values()))


# Out of how many draws a command of a play is of a kind; 4 where nothing is said. What brings a run
# forward comes more often than what ends it, so that plays get deep before they end.
_WEIGHTS: Final[Mapping[type[Any], int]] = {
    en.AcceptEvent: 12,
    en.AwaitChild: 8,
    en.AwaitEvent: 16,
    en.CancelRun: 1,
    en.CompleteRun: 1,
    en.ContinueRun: 1,
    en.CreateRun: 1,
    en.Diverge: 1,
    en.Elapse: 12,
    en.EndChild: 12,
    en.FailRun: 3,
    en.FinishCancel: 2,
    en.ParkRun: 16,
    en.RecordFailure: 8,
    en.RequeueRun: 6,
    en.ResumeRun: 6,
    en.StallRun: 1,
    en.StartChild: 12,
    en.StartSleep: 12,
    en.StartTimeout: 8,
    en.TerminateRun: 1,
    en.UnparkRun: 1,
}
_POOL_SIZE: Final = 8_000


@attrs.frozen
class Move:
    """One step of a play, before it is played.

    Attributes:
        command: what is asked; may hold placeholders.
        instead: what is asked if `command` is a worker's and no worker holds the run.
        passes: microseconds that go by before it.
        standby: whether a worker takes the run at once should it become ready.
        claim: whether a ready run is claimed before.

    """

    command: Command
    instead: Command
    passes: Micros = Micros(0)
    standby: bool = False
    claim: bool = True


@cache
def _move_pool() -> Sequence[Move]:
    """Make the moves of all plays once: drawing one of them is one choice, and so is cheap."""
    chance = random.Random(0)
    every = every_command()
    kinds = [kind for kind in every for _ in range(_WEIGHTS.get(kind, 4))]
    clients = [kind for kind in kinds if not issubclass(kind, en.WorkerCommand)]
    return [
        Move(
            chance.choice(every[chance.choice(kinds)]),
            chance.choice(every[chance.choice(clients)]),
            chance.choice((*SPANS[:1] * 4, *SPANS)),
            chance.random() < 0.3,
            chance.random() < 0.9,
        )
        for _ in range(_POOL_SIZE)
    ]


@cache
def moves() -> st.SearchStrategy[Move]:
    """Draw one step of a play."""
    return st.sampled_from(_move_pool())


@attrs.define(eq=False)
class Step:
    """One command that was played, with everything around it; the states are independent."""

    before: RunState
    command: Command
    now: Micros
    offer: en.ClaimOffer | None
    decision: en.Decision
    entries: tuple[Entry, ...]
    after: RunState

    def __str__(self) -> str:
        told = type(self.command).__name__
        fields = attrs.asdict(self.command, recurse=False)
        given = ", ".join(f"{name}={value!s:.60}" for name, value in fields.items())
        if isinstance(self.decision, en.Rejected):
            outcome = self.decision.code
        else:
            outcome = ", ".join(entry.body.kind for entry in self.entries) or "nothing"
        return f"{self.now - START} {told}({given}) -> {outcome}"


@attrs.define(eq=False, repr=False)
class Play:
    """A run's life so far: its state, its journal and every step that led there."""

    state: RunState = attrs.Factory(lambda: RunState(RUN_ID))
    now: Micros = START
    limits: en.EngineLimits = LIMITS
    journal: list[Entry] = attrs.Factory(list[Entry])
    steps: list[Step] = attrs.Factory(list[Step])
    claims: int = 0

    def __repr__(self) -> str:
        """Tell the story; the states in full would bury what a failing test has to say."""
        return "\n".join(["a play:", *map(str, self.steps)])

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """Let Hypothesis print it so too; it would go through the fields of an attrs class."""
        printer.text(repr(self))

    def offer(self) -> en.ClaimOffer:
        """Make an offer with a claim id that was never used."""
        self.claims += 1
        return en.ClaimOffer("wrk_1", f"offered-{self.claims}")

    def do(self, command: Command, *, standby: bool = False) -> en.Decision:
        """Play one command, placeholders filled in, and keep what happened."""
        before = clone(self.state)
        told = fill_in(command, self.state)
        offer = self.offer() if standby else None
        decision = en.decide(self.state, told, self.now, offer=offer, limits=self.limits)
        entries: tuple[Entry, ...] = ()
        if not isinstance(decision, en.Rejected):
            seqs = range(self.state.seq + 1, self.state.seq + 1 + len(decision))
            entries = tuple(
                Entry(seq, self.now, body) for seq, body in zip(seqs, decision, strict=True)
            )
        for entry in entries:
            self.state = en.evolve(self.state, entry)
        self.journal.extend(entries)
        after = clone(self.state)
        self.steps.append(Step(before, told, self.now, offer, decision, entries, after))
        return decision

    def expect(self, command: Command, *kinds: type[en.Body], standby: bool = False) -> None:
        """Play one command that must lead to exactly these kinds of entries."""
        decision = self.do(command, standby=standby)
        assert not isinstance(decision, en.Rejected), f"{command} was refused: {decision}"
        assert tuple(map(type, decision)) == kinds, f"{command} led to {decision}"

    def refuse(self, command: Command, code: str) -> None:
        """Play one command that must be refused with this code."""
        decision = self.do(command)
        assert isinstance(decision, en.Rejected), f"{command} was taken: {decision}"
        assert decision.code == code, decision
        assert decision.message, "a refusal says why"

    def claim(self) -> None:
        """Let a worker take the run, which must be ready."""
        self.claims += 1
        self.expect(en.ClaimRun("wrk_1", f"claim-{self.claims}"), en.RunClaimed)

    def park(self) -> None:
        """Let the worker park the run, which must wait for something."""
        self.expect(en.ParkRun(EVERY_WAIT, claim=CURRENT), en.RunParked)

    def pass_time(self, span: int) -> None:
        """Let time go by, without telling the run."""
        self.now = Micros(self.now + span)

    def play(self, move: Move) -> None:
        """Carry one move out."""
        self.pass_time(move.passes)
        if move.claim and self.state.ready:
            self.claim()
        command = move.command
        if isinstance(command, en.WorkerCommand) and command.claim is CURRENT:
            command = command if self.state.claim is not None else move.instead
        self.do(command, standby=move.standby)


def started(**changes: Any) -> Play:
    """Begin a play with a run that a worker executes."""
    play = Play(limits=en.DEFAULT_LIMITS)
    play.expect(en.CreateRun(spec(**changes)), en.RunCreated, en.RunQueued)
    play.claim()
    return play


def played(created: en.RunCreated | None, moves_made: Iterable[Move]) -> Play:
    """Carry a list of moves out, after the start if there is one."""
    play = Play()
    if created is not None:
        play.do(en.CreateRun(created))
    for move in moves_made:
        play.play(move)
    return play


# Composite and not `builds`, whose values are printed as the whole call that built them.
@st.composite
def _plays(draw: st.DrawFn) -> Play:
    created = draw(specs()) if draw(st.sampled_from((True,) * 15 + (False,))) else None
    few, many = st.lists(moves(), max_size=8), st.lists(moves(), min_size=25, max_size=40)
    return played(created, draw(few | many | many))


@cache
def plays() -> st.SearchStrategy[Play]:
    """Draw a run's life: a few moves or many, nearly always begun."""
    return _plays()


def states() -> st.SearchStrategy[RunState]:
    """Draw a state that a run can be in."""
    return plays().map(lambda play: play.state)


def fill_in(command: Command, state: RunState) -> Command:
    """Replace the placeholders of a command by what they stand for in `state`."""
    if isinstance(command, en.WorkerCommand) and command.claim is CURRENT:
        held = ClaimRef(state.epoch, "none") if state.claim is None else state.claim.ref
        command = attrs.evolve(command, claim=held)
    if isinstance(command, en.ParkRun) and command.waiting is EVERY_WAIT:
        command = attrs.evolve(command, waiting=tuple(state.waits))
    if isinstance(command, en.LoseClaim) and command.epoch == CURRENT_EPOCH:
        command = attrs.evolve(command, epoch=state.epoch)
    return command


def clone(state: RunState) -> RunState:
    """Copy a state so that nothing done to either shows in the other."""
    return RunState(**{name: _cloned(getattr(state, name)) for name in _FIELDS})


_FIELDS: Final = tuple(field.name for field in attrs.fields(RunState))


def _cloned(value: Any) -> Any:
    match value:
        case dict():
            return {key: _cloned(item) for key, item in value.items()}
        case deque() | set():
            return value.copy()
        case en.Wait() | en.Child():
            return attrs.evolve(value)
        case _:
            return value


def facts(value: Any) -> Any:
    """Return a state as nested tuples that compare by content, order of waits included."""
    match value:
        case RunState():
            return tuple((name, facts(getattr(value, name))) for name in _FIELDS)
        case en.Wait() | en.Child():
            return attrs.astuple(value, recurse=False)
        case dict():
            return tuple((key, facts(item)) for key, item in value.items())
        case deque():
            return tuple(value)
        case set():
            return frozenset(value)
        case _:
            return value
