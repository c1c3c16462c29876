"""Break the engine on purpose, in memory, and show that a named test notices.

A property that nothing can fail proves nothing. Each mutant here is one plausible mistake in the
transition table, in a rule or in what an entry changes, with the test that must find it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase as Stage, given, settings, strategies as st

from aiki_actors import engine as en
from aiki_actors.engine import (
    Body,
    Entry,
    Phase,
    RunState,
    _decide as deciding,
    _decide_client as clients,
    _decide_worker as workers,
    _decision as decisions,
    _evolve as evolving,
    _transitions as transitions,
)
from tests.unit.engine import (
    test_notices as owed,
    test_promises as promises,
    test_properties as properties,
)
from tests.unit.engine.strategies import SPANS, commands, moves, one_of_each, plays

Patch = pytest.MonkeyPatch
FOUND = (AssertionError, en.IllegalEntry, KeyError, ValueError)
"""How a mistake shows: a promise is broken, or an entry does not fit the state it meets."""


def table_without(phase: Phase, kind: type[Body]) -> Callable[[Patch], None]:
    """Take a row out of the transition table."""
    rest = {key: to for key, to in en.TRANSITIONS.items() if key != (phase, kind)}
    return lambda patch: patch.setattr(transitions, "TRANSITIONS", rest)


def table_with(phase: Phase, kind: type[Body], target: Phase) -> Callable[[Patch], None]:
    """Let a row of the transition table lead somewhere else."""
    changed = {**en.TRANSITIONS, (phase, kind): target}
    return lambda patch: patch.setattr(transitions, "TRANSITIONS", changed)


def rule(
    kind: type[Any], change: Callable[[RunState, Any, en.Decision], en.Decision]
) -> Callable[[Patch], None]:
    """Let something be done to what a rule decides."""
    true = en.RULES[kind]

    def broken(state: RunState, command: Any, by: Any) -> en.Decision:
        return change(state, command, true(state, command, by))

    return lambda patch: patch.setattr(deciding, "RULES", {**en.RULES, kind: broken})


def without(*kinds: type[Body]) -> Callable[[RunState, Any, en.Decision], en.Decision]:
    """Leave kinds of entries out of a decision."""

    def change(_state: RunState, _command: Any, decided: en.Decision) -> en.Decision:
        if isinstance(decided, en.Rejected):
            return decided
        return tuple(body for body in decided if not isinstance(body, kinds))

    return change


def entry_does(
    kind: type[Body], change: Callable[[RunState, Any, Entry], None]
) -> Callable[[Patch], None]:
    """Let a kind of entry change something else than it should."""
    return lambda patch: patch.setattr(evolving, "CHANGES", {**en.CHANGES, kind: change})


def function(
    name: str, broken: Callable[..., Any], *modules: ModuleType
) -> Callable[[Patch], None]:
    """Replace a function wherever it was imported."""

    def apply(patch: Patch) -> None:
        for module in modules:
            patch.setattr(module, name, broken)

    return apply


def nothing(*_arguments: object) -> None:
    """Change nothing."""


def keep(name: str) -> Callable[[Patch], None]:
    """Let a change of phase forget to clear a field."""
    true = evolving._enter

    def broken(state: RunState, phase: Phase, at: en.Micros) -> None:
        before = getattr(state, name)
        true(state, phase, at)
        if before is not None:
            setattr(state, name, before)

    return function("_enter", broken, evolving)


def succeed_twice(_state: RunState, command: Any, decided: en.Decision) -> en.Decision:
    return decided or (en.TaskSucceeded(command.call, command.attempt, command.output),)


def end_twice(state: RunState, command: Any, decided: en.Decision) -> en.Decision:
    known = command.child_id in state.children and not state.phase.terminal
    return (en.ChildEnded(command.child_id, command.status),) if known else decided


def accept_twice(state: RunState, command: Any, decided: en.Decision) -> en.Decision:
    live = not state.phase.terminal
    return (en.EventAccepted(command.name, command.data),) if live and decided == () else decided


def take_newest(state: RunState, command: Any, decided: en.Decision) -> en.Decision:
    unread = state.unread.get(command.event)
    if isinstance(decided, tuple) and unread and decided:
        return (en.EventConsumed(command.call, command.event, unread[-1]),)
    return decided


def forget_waits(state: RunState, _command: Any, decided: en.Decision) -> en.Decision:
    state.waits.clear()
    state.seq += 0 if state.waits else 1
    return decided


def claim_paused(state: RunState, reason: str, by: Any) -> tuple[Body, ...]:
    if by.offer is not None:
        return (en.RunClaimed(by.offer.worker_id, state.epoch + 1, by.offer.claim_id),)
    return (en.RunQueued(reason),)


def only_resolve(_state: RunState, resolved: Any, _reason: str, _by: Any) -> en.Decision:
    decided: en.Decision = resolved
    return decided


def lose_item(state: RunState, body: Any, _entry: Entry) -> None:
    del state.consumed[body.call]


def count_from_zero(state: RunState, body: Any, entry: Entry) -> None:
    en.CHANGES[en.RunClaimed](state, body, entry)
    state.epoch = 0


def tell_nobody(state: RunState, entries: Any) -> tuple[en.Notice, ...]:
    told = TRUE_NOTICES(state, entries)
    return tuple(note for note in told if not isinstance(note.command, en.EndChild))


def spare_children(state: RunState, entries: Any) -> tuple[en.Notice, ...]:
    told = TRUE_NOTICES(state, entries)
    return tuple(note for note in told if not isinstance(note.command, en.CancelRun))


TRUE_NOTICES = en.notices
WITH_MOVES = (plays(), st.lists(moves(), max_size=6))
WITH_SPAN = (plays(), st.sampled_from(SPANS))
WITH_ALL = (plays(), one_of_each())
WITH_TOLD = (plays(), st.lists(commands(), max_size=4), st.sampled_from(SPANS))


@attrs.frozen
class Mutant:
    """A mistake, and the test that must find it (with its strategies, if it is a property)."""

    mistake: str
    apply: Callable[[Patch], None]
    found_by: Any
    drawn: tuple[st.SearchStrategy[Any], ...] = ()


P = (plays(),)
MUTANTS = (
    Mutant(
        "a queued run cannot be claimed",
        table_without(Phase.QUEUED, en.RunClaimed),
        properties.test_every_decided_entry_has_a_row_in_the_transition_table,
        P,
    ),
    Mutant(
        "a run that parks stays in the queue",
        table_with(Phase.RUNNING, en.RunParked, Phase.QUEUED),
        properties.test_every_decided_entry_has_a_row_in_the_transition_table,
        P,
    ),
    Mutant(
        "a completed run is not over",
        table_with(Phase.RUNNING, en.RunCompleted, Phase.QUEUED),
        properties.test_an_outcome_is_there_once_a_run_has_ended_and_only_then,
        P,
    ),
    Mutant(
        "a lost claim ends the run",
        table_with(Phase.RUNNING, en.ClaimLost, Phase.FAILED),
        promises.test_13_a_zombie_worker_never_becomes_valid_again,
    ),
    Mutant(
        "every worker is listened to",
        function("stale", lambda *_: False, deciding),
        properties.test_only_the_holder_of_the_claim_is_listened_to,
        P,
    ),
    Mutant(
        "the epoch alone fences",
        function(
            "stale",
            lambda state, said: state.claim is None or state.claim.ref.epoch != said.claim.epoch,
            deciding,
        ),
        properties.test_only_the_holder_of_the_claim_is_listened_to,
        P,
    ),
    Mutant(
        "a resolved wait wakes nobody",
        function("wake", only_resolve, clients),
        properties.test_a_run_that_waits_becomes_ready_when_a_wait_is_resolved,
        P,
    ),
    Mutant(
        "a paused run is handed out",
        function("become_ready", claim_paused, decisions, clients, workers),
        properties.test_a_paused_run_is_handed_to_nobody,
        P,
    ),
    Mutant(
        "a resume forgets to lift the pause",
        entry_does(en.RunResumed, nothing),
        properties.test_a_pause_delays_and_never_loses_what_arrives,
        WITH_TOLD,
    ),
    Mutant(
        "a claim outlives its phase",
        keep("claim"),
        properties.test_a_claim_is_held_exactly_while_the_run_is_running,
        P,
    ),
    Mutant(
        "a run is ready after it was claimed",
        keep("ready_at"),
        properties.test_ready_at_is_set_exactly_while_the_run_is_queued,
        P,
    ),
    Mutant(
        "epochs start again",
        entry_does(en.RunClaimed, count_from_zero),
        properties.test_each_claim_has_a_higher_epoch,
        P,
    ),
    Mutant(
        "the newest event is taken first",
        rule(en.AwaitEvent, take_newest),
        properties.test_events_of_a_name_are_consumed_in_order_of_acceptance,
        P,
    ),
    Mutant(
        "an event that was given back is lost",
        entry_does(en.EventReturned, lose_item),
        promises.test_06_an_item_that_is_given_back_is_the_next_to_be_read,
    ),
    Mutant(
        "a reference id is not looked at",
        rule(en.AcceptEvent, accept_twice),
        properties.test_a_command_said_again_changes_nothing,
        WITH_ALL,
    ),
    Mutant(
        "an event is kept from a wait that was there first",
        rule(en.AcceptEvent, without(en.EventConsumed)),
        properties.test_nobody_waits_for_an_event_that_is_there,
        P,
    ),
    Mutant(
        "a task succeeds twice",
        rule(en.RecordSuccess, succeed_twice),
        properties.test_a_command_said_again_changes_nothing,
        WITH_ALL,
    ),
    Mutant(
        "a child ends twice",
        rule(en.EndChild, end_twice),
        properties.test_a_command_said_again_changes_nothing,
        WITH_ALL,
    ),
    Mutant(
        "time resolves what is not due",
        function("is_due", lambda wait, _by: wait.due_at is not None, clients),
        properties.test_time_resolves_what_is_due_and_nothing_else,
        WITH_SPAN,
    ),
    Mutant(
        "the end of the grace is missed",
        rule(en.Elapse, without(en.RunCancelled)),
        properties.test_a_cancellation_always_ends,
        WITH_MOVES,
    ),
    Mutant(
        "the run's timeout is missed",
        rule(en.Elapse, without(en.RunFailed)),
        properties.test_a_run_never_outlives_its_timeout,
        WITH_MOVES,
    ),
    Mutant(
        "deciding changes the state",
        rule(en.PauseRun, forget_waits),
        properties.test_deciding_never_changes_the_state,
        WITH_ALL,
    ),
    Mutant(
        "losses are not counted",
        entry_does(en.ClaimLost, nothing),
        promises.test_a_run_whose_workers_are_lost_in_a_row_stalls_with_the_reason,
    ),
    Mutant(
        "progress is not seen",
        entry_does(en.TaskSucceeded, nothing),
        promises.test_progress_between_two_losses_starts_the_count_again,
    ),
    Mutant(
        "the parent is not told",
        function("notices", tell_nobody, en),
        owed.test_a_parent_is_told_of_each_end_exactly_once,
        P,
    ),
    Mutant(
        "a cancellation spares the children",
        function("notices", spare_children, en),
        owed.test_the_end_of_a_run_reaches_the_children_that_it_must,
        P,
    ),
)

hunting = settings(
    max_examples=3_000,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Stage.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def check(mutant: Mutant) -> None:
    """Run the test that a mutant names."""
    if not mutant.drawn:
        mutant.found_by()
        return
    hunting(given(*mutant.drawn)(mutant.found_by.hypothesis.inner_test))()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.mistake.replace(" ", "-"))
def test_a_mistake_in_the_engine_is_noticed(mutant: Mutant, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        mutant.apply(patch)
        with pytest.raises(FOUND):
            check(mutant)
