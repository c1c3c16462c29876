"""What a run owes to other runs: its children, and its parent.

Properties of `notices`, and of the entries about children, over drawn plays (see `strategies.py`).
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given

from aiki_actors import engine as en
from aiki_sdk.protocol import OnParentEnd, WaitKind
from tests.unit.engine.strategies import PARENT_ID, RUN_ID, Play, plays


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


@given(plays())
def test_each_child_is_created_once(play: Play) -> None:
    created = [n.target_id for n in all_notices(play) if isinstance(n.command, en.CreateRun)]
    assert created == list(play.state.children)


@given(plays())
def test_a_parent_is_told_of_each_end_exactly_once(play: Play) -> None:
    ends = sum(
        after.phase.terminal and not before.phase.terminal
        for before, after in ((step.before, step.after) for step in play.steps)
    )
    told = [n for n in all_notices(play) if isinstance(n.command, en.EndChild)]
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
        ends = step.after.phase.terminal and bool(step.entries)
        expected: set[str] = alive if cancels else tied if ends else set()
        assert told == expected
