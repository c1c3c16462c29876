"""The transition table, exhaustively: every phase with every kind of entry."""

from __future__ import annotations

import runpy
from collections import deque
from pathlib import Path

import pytest

from aiki_actors import engine as en
from aiki_actors.engine import Body, Call, Entry, Micros, Phase, RunState
from aiki_sdk.protocol import OnParentEnd, RunStatus, Slept, WaitKind
from tests.unit.engine.strategies import CHILDREN, ERROR, RUN_ID, clone, facts, spec

ROOT = Path(__file__).resolve().parents[3]
AT = Micros(5)
CALL = Call("task:charge:9f")
WAIT = Call("event:paid")
TAKEN = Call("event:paid", index=1)
CHILD = CHILDREN[0]

EXAMPLES: dict[type[Body], Body] = {
    type(body): body
    for body in (
        spec(),
        en.RunQueued("time"),
        en.RunClaimed("wrk_1", 2, "claim-2"),
        en.RunParked(),
        en.ClaimReleased("shutdown"),
        en.ClaimLost("wrk_1", "gone"),
        en.TaskSucceeded(CALL, 1, None),
        en.TaskFailed(CALL, 1, ERROR),
        en.AttemptFailed(CALL, 1, ERROR, AT, waits=True),
        en.TaskStarted(CALL, 1),
        en.HeartbeatRecorded(CALL, 1, {"row": 5}),
        en.RetryDue(CALL),
        en.SleepStarted(Call("sleep:late"), AT, AT),
        en.SleepEnded(Call("sleep:late"), Slept.ELAPSED),
        en.TimeoutStarted(Call("timeout:patience"), AT, AT),
        en.TimeoutReached(Call("timeout:patience")),
        en.EventAccepted("paid", 1),
        en.EventWaitStarted(WAIT, "paid"),
        en.EventConsumed(WAIT, "paid", 3),
        en.EventReturned(TAKEN, "paid", 2),
        en.ChildWaitStarted(Call("wait-child"), CHILD),
        en.WaitTimedOut(WAIT),
        en.WaitAbandoned(WAIT),
        en.ChildStarted(Call("child"), "run_new", "w", "1", OnParentEnd.ABANDON, spec()),
        en.ChildEnded(CHILD, RunStatus.COMPLETED),
        en.ValueRecorded(Call("local:now"), 1),
        en.ValuePublished(Call("publish:progress"), "progress", 1),
        en.EventSent(Call("send:run_other"), "run_other", "paid", 1),
        en.QuestionAnswered(Call("answer:3"), 3, "yes"),
        en.RunPaused(),
        en.RunResumed(),
        en.CancelRequested(None, AT),
        en.RunAttemptFailed(1, ERROR, AT),
        en.RunRetried(),
        en.RunStalled("poison"),
        en.RunRequeued(),
        en.RunCompleted(None),
        en.RunContinued("run_next", spec()),
        en.RunForked("run_fork", 3),
        en.RunWatched("run_watcher", "run_linked"),
        en.RunFailed(ERROR),
        en.RunCancelled(None),
    )
}
"""One entry of every kind, each of which finds what it refers to in `state_in`."""


def state_in(phase: Phase) -> RunState:
    """Make a state in which every entry of `EXAMPLES` could follow but for its phase."""
    state = RunState(RUN_ID, seq=9, phase=phase, created=spec())
    state.unread["paid"] = deque((3,))
    state.consumed[TAKEN] = ("paid", 2)
    state.children[CHILD] = en.Child(Call("child"), OnParentEnd.ABANDON)
    state.waits[WAIT] = en.Wait(WaitKind.EVENT, "paid", None, AT)
    if phase is Phase.RUNNING:
        state.claim, state.epoch = en.Claim("wrk_1", en.ClaimRef(1, "claim-1")), 1
    return state


def test_there_is_an_example_of_every_kind_of_entry() -> None:
    assert set(EXAMPLES) == set(en.ENTRY_KINDS.values())
    assert set(EXAMPLES) == {row.entry for row in en.ROWS}, "and each can happen somewhere"


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("phase", Phase)
def test_exactly_the_entries_with_a_row_are_taken(phase: Phase, kind: type[Body]) -> None:
    """What has a row changes the phase to the row's; anything else is refused, the state kept."""
    state = state_in(phase)
    before = facts(state)
    entry = Entry(10, AT, EXAMPLES[kind])
    if (phase, kind) in en.TRANSITIONS:
        after = en.evolve(state, entry)
        assert after.phase is en.TRANSITIONS[phase, kind]
        assert (after.seq, after.updated_at) == (10, AT)
    else:
        with pytest.raises(en.IllegalEntry, match=kind.kind):
            en.evolve(state, entry)
        assert facts(state) == before


@pytest.mark.parametrize("seq", [-1, 0, 9, 11])
def test_an_entry_with_another_seq_than_the_next_is_refused(seq: int) -> None:
    state = state_in(Phase.RUNNING)
    with pytest.raises(en.IllegalEntry, match="damaged"):
        en.evolve(state, Entry(seq, AT, en.RunPaused()))


def test_the_table_says_what_its_rows_say() -> None:
    rows = {(source, row.entry): row.target or source for row in en.ROWS for source in row.sources}
    assert dict(en.TRANSITIONS) == rows
    assert sum(len(row.sources) for row in en.ROWS) == len(rows), "no pair has two rows"


def test_every_phase_can_be_reached_and_every_live_one_left() -> None:
    reached = {Phase.NEW}
    while more := {t for (s, _k), t in en.TRANSITIONS.items() if s in reached} - reached:
        reached |= more
    assert reached == set(Phase)
    for phase in Phase:
        leaves = {t for (s, _k), t in en.TRANSITIONS.items() if s is phase and t is not phase}
        assert bool(leaves) == (phase not in (Phase.COMPLETED, Phase.CANCELLED))


def test_only_a_running_run_changes_by_its_worker() -> None:
    """The entries that a worker's words lead to, but for an outcome, have one source only."""
    everywhere = {en.EventConsumed, en.RunFailed, en.RunCancelled, en.RunStalled, en.SleepEnded}
    workers = {en.TaskSucceeded, en.TaskFailed, en.AttemptFailed, en.SleepStarted}
    workers |= {en.EventWaitStarted, en.ChildWaitStarted, en.WaitAbandoned, en.EventReturned}
    workers |= {en.ChildStarted, en.ValueRecorded, en.RunParked, en.ClaimReleased, en.RunCompleted}
    workers |= {en.TimeoutStarted}
    workers |= {en.ValuePublished, en.EventSent, en.QuestionAnswered, en.RunContinued}
    assert not workers & everywhere
    for phase, kind in en.TRANSITIONS:
        if kind in workers:
            assert phase is Phase.RUNNING


@pytest.mark.parametrize("kind", en.ENTRY_KINDS)
def test_an_entry_is_known_by_its_kind_and_is_a_value(kind: str) -> None:
    cls = en.ENTRY_KINDS[kind]
    assert cls.kind == kind
    assert kind == kind.lower().replace("_", "-")
    assert getattr(en, cls.__name__) is cls, "the class that is exported is the one that is read"
    assert cls.__doc__


def test_a_copied_state_is_equal_and_independent() -> None:
    """Guards the tools of these tests: `clone` and `facts` see every field."""
    state = state_in(Phase.RUNNING)
    copy = clone(state)
    assert facts(copy) == facts(state)
    en.evolve(copy, Entry(10, AT, EXAMPLES[en.EventConsumed]))
    assert facts(copy) != facts(state)
    assert facts(state) == facts(state_in(Phase.RUNNING))


def test_the_page_of_run_states_is_up_to_date() -> None:
    """It is written anew by `python docs/_generate_run_states.py`."""
    generator = runpy.run_path(str(ROOT / "docs" / "_generate_run_states.py"))
    assert generator["PAGE"].read_text(encoding="utf-8") == generator["page"]()
    assert set(generator["STATUSES"]) == set(RunStatus)


def test_the_diagram_draws_every_change_of_phase_as_mermaid_reads_it() -> None:
    """A label of a Mermaid state diagram ends at a colon or a semicolon."""
    lines = en.mermaid().splitlines()
    drawn = {line.split(":")[0].strip() for line in lines if ": " in line}
    changes = {(s, t) for (s, _k), t in en.TRANSITIONS.items() if s is not t and s is not Phase.NEW}
    assert drawn == {f"{source} --> {target}" for source, target in changes} | {"[*] --> scheduled"}
    assert all(line.count(":") <= 1 and ";" not in line for line in lines)
