"""What a run owes to other runs: its children, and its parent.

Properties of `notices`, and of the entries about children, over drawn plays (see `strategies.py`).
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given

from aiki_actors import engine as en
from aiki_actors.engine import Call, RunState
from aiki_sdk.protocol import OnParentEnd, RunStatus, WaitKind
from tests.unit.engine.strategies import CURRENT, PARENT_ID, RUN_ID, Play, plays, spec, started


@given(plays())
def test_a_child_starts_once_and_ends_at_most_once(play: Play) -> None:
    begun = Counter(e.body.child_id for e in play.journal if isinstance(e.body, en.ChildStarted))
    ended = Counter(e.body.child_id for e in play.journal if isinstance(e.body, en.ChildEnded))
    assert set(begun.values()) <= {1}
    assert set(ended.values()) <= {1}
    assert ended.keys() <= begun.keys()
    assert begun.keys() == play.state.children.keys()


@given(plays())
def test_nobody_waits_for_a_child_that_has_ended(play: Play) -> None:
    for step in play.steps:
        for wait in step.after.waits.values():
            if wait.kind is WaitKind.CHILD:
                assert step.after.children[wait.name].status is None


def all_notices(play: Play) -> list[en.Notice]:
    """List what a run's whole life owed to others, decision by decision."""
    return [note for step in play.steps for note in en.notices(step.after, step.entries)]


@given(plays())
def test_notices_are_the_same_whenever_they_are_worked_out(play: Play) -> None:
    for step in play.steps:
        found = en.notices(step.after, step.entries)
        assert found == en.notices(step.after, step.entries)
        last = en.notices(step.after, step.entries[-1:])
        assert last == found[len(found) - len(last) :], "the same cause is the same notice"


@given(plays())
def test_notices_have_unique_ids_that_name_their_cause(play: Play) -> None:
    found = all_notices(play)
    assert len({note.id for note in found}) == len(found)
    for note in found:
        source, seq, _number = note.id.split(":")
        assert source == note.source_id == RUN_ID
        assert 1 <= int(seq) <= play.state.seq


def continued(state: RunState) -> bool:
    """Tell whether the run goes on as another one."""
    return state.outcome is not None and state.outcome.continued_as is not None


@given(plays())
def test_each_child_is_created_once(play: Play) -> None:
    """And so is the run that goes on in this one's place, if there is one."""
    created = [n.target_id for n in all_notices(play) if isinstance(n.command, en.CreateRun)]
    outcome = play.state.outcome
    successor = None if outcome is None else outcome.continued_as
    assert created == [*play.state.children, *([] if successor is None else [successor])]


@given(plays())
def test_a_parent_is_told_of_each_end_exactly_once(play: Play) -> None:
    """A run that continues as a new one has not ended for its parent; who watches is another."""
    ends = sum(
        after.phase.terminal and not before.phase.terminal and not continued(after)
        for before, after in ((step.before, step.after) for step in play.steps)
    )
    told = [
        note
        for note in all_notices(play)
        if isinstance(note.command, en.EndChild) and note.target_id != "run_watcher"
    ]
    has_parent = play.state.created is not None and play.state.created.parent is not None
    assert len(told) == (ends if has_parent else 0)
    for note in told:
        assert note.target_id == PARENT_ID
        assert isinstance(note.command, en.EndChild)
        assert note.command.child_id == RUN_ID
        assert note.command.status.terminal


@given(plays())
def test_the_end_of_a_run_reaches_the_children_that_it_must(play: Play) -> None:
    """Cancelling reaches all that live; any other end those that must not outlive their parent."""
    for step in play.steps:
        told = {
            note.target_id
            for note in en.notices(step.after, step.entries)
            if isinstance(note.command, en.CancelRun)
        }
        alive = set(step.after.live_children)
        tied = {c for c in alive if step.after.children[c].on_parent_end is OnParentEnd.CANCEL}
        written = [entry.body for entry in step.entries]
        cancels = any(isinstance(b, en.CancelRequested | en.RunCancelled) for b in written)
        ends = step.after.phase.terminal and not step.before.phase.terminal
        expected: set[str] = alive if cancels else tied if ends else set()
        assert told == expected


def last_notices(play: Play) -> list[tuple[str, object]]:
    """List what the last decision of a play owes: to whom, and what."""
    step = play.steps[-1]
    return [(note.target_id, note.command) for note in en.notices(step.after, step.entries)]


def test_a_run_that_continues_hands_over_what_it_did_not_read() -> None:
    """The successor is created first, then gets the items in order, each under a lasting name."""
    play = started(parent=en.ParentLink(PARENT_ID))
    play.do(en.AcceptEvent("paid", 1))
    play.do(en.AcceptEvent("shipped", 2, "ref-2"))
    play.do(en.AcceptEvent("paid", 3))
    play.expect(en.AwaitEvent(Call("event:paid"), "paid", claim=CURRENT), en.EventConsumed)
    play.expect(en.WatchRun("run_watcher", "run_linked"), en.RunWatched)
    item = play.state.unread["paid"][0]
    again = spec(continued_from=RUN_ID)
    play.expect(en.ContinueRun("run_next", again, claim=CURRENT), en.RunContinued)
    assert last_notices(play) == [
        ("run_next", en.CreateRun(again)),
        ("run_next", en.AcceptEvent("shipped", 2, "ref-2")),
        ("run_next", en.AcceptEvent("paid", 3, f"continued:{RUN_ID}:{item}")),
        ("run_next", en.WatchRun("run_watcher", "run_linked")),
    ], "and the parent is told nothing: its child goes on"


def test_who_watches_a_run_is_told_its_end_whenever_it_began_to() -> None:
    play = started()
    play.expect(en.WatchRun("run_watcher", "run_linked"), en.RunWatched)
    assert last_notices(play) == []
    play.expect(en.CompleteRun("done", claim=CURRENT), en.RunCompleted)
    end = en.EndChild("run_linked", RunStatus.COMPLETED, "done")
    assert last_notices(play) == [("run_watcher", end)]
    play.expect(en.WatchRun("run_late", "run_linked_2"), en.RunWatched)
    late = en.EndChild("run_linked_2", RunStatus.COMPLETED, "done")
    assert last_notices(play) == [("run_late", late)]
    play.expect(en.WatchRun("run_late", "run_linked_2"))


def test_an_event_sent_stays_in_its_namespace() -> None:
    play = started(namespace="a")
    play.expect(en.SendEvent(Call("send"), "run_b", "paid", 1, claim=CURRENT), en.EventSent)
    sent = en.AcceptEvent("paid", 1, f"sent:{RUN_ID}:{play.state.seq}", "a")
    assert last_notices(play) == [("run_b", sent)]
    started(namespace="b").refuse(sent, "not-found")
    started(namespace="a").expect(sent, en.EventAccepted)


def test_a_fork_is_noted_once_by_the_run_that_it_was_made_of() -> None:
    play = Play()
    play.do(en.ForkRun(spec(forked_from=en.Fork("run_old", 7)), ()))
    assert last_notices(play) == [("run_old", en.NoteFork(RUN_ID, 7))]
    old = started()
    old.expect(en.NoteFork("run_fork", 7), en.RunForked)
    old.expect(en.NoteFork("run_fork", 7))
