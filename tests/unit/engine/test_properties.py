"""What holds for every run, whatever is asked of it and in whatever order.

Each test takes a drawn play (see `strategies.py`), which is one run's whole life, and checks one
promise of the engine on every step of it. `test_mutations.py` breaks the engine on purpose and
shows that these tests notice.
"""

from __future__ import annotations

import typing
from collections import Counter
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, strategies as st

from aiki_actors import engine as en
from aiki_actors.engine import Call, Command, Micros, Phase, RunState
from aiki_sdk.protocol import RunStatus, WaitKind
from tests.unit.engine.strategies import (
    CURRENT,
    LIMITS,
    RUN_ID,
    SPANS,
    Move,
    Play,
    Step,
    clone,
    commands,
    every_command,
    facts,
    moves,
    one_of_each,
    plays,
)

COMMANDS: tuple[type[Command], ...] = typing.get_args(Command)

SAID_AGAIN_MEANS_AGAIN = (en.AcceptEvent, en.RecordHeartbeat, en.StartSleep, en.WakeRun)
"""What is no repetition when it is said twice: another event without a reference id, the next
heartbeat or sleep to wake, and the rest of a sleep that the code made longer."""


def bodies(step: Step) -> list[en.Body]:
    """List what happened in a step."""
    return [entry.body for entry in step.entries]


def changed(step: Step) -> bool:
    """Tell whether a step wrote anything."""
    return bool(step.entries)


# --- decide ---------------------------------------------------------------------------------------


@given(plays(), one_of_each(), st.booleans())
def test_every_command_is_answered_in_every_state(
    play: Play, every: tuple[Command, ...], standby: bool
) -> None:
    """`decide` neither raises nor changes the state, and what it answers can be carried out."""
    before = facts(play.state)
    for command in every:
        probe = Play(clone(play.state), play.now, claims=play.claims)
        decision = probe.do(command, standby=standby)
        assert isinstance(decision, tuple | en.Rejected)
        assert facts(probe.steps[0].before) == before, "decide or evolve touched what it was given"
        if isinstance(decision, en.Rejected):
            assert decision.code, "a refusal has a code"
            assert decision.message, "a refusal says why"


@given(plays(), one_of_each())
def test_deciding_never_changes_the_state(play: Play, every: tuple[Command, ...]) -> None:
    before = facts(play.state)
    for command in every:
        en.decide(play.state, command, play.now, offer=play.offer(), limits=LIMITS)
        assert facts(play.state) == before, f"{command} changed the state that it was asked about"


@given(plays(), commands(), st.booleans())
def test_the_same_question_gets_the_same_answer(play: Play, command: Command, free: bool) -> None:
    offer = play.offer() if free else None
    first = en.decide(play.state, command, play.now, offer=offer, limits=LIMITS)
    assert en.decide(play.state, command, play.now, offer=offer, limits=LIMITS) == first


@given(plays())
def test_a_refusal_or_an_empty_decision_leaves_the_journal_untouched(play: Play) -> None:
    for step in play.steps:
        if not step.entries:
            assert facts(step.after) == facts(step.before)


@given(plays())
def test_every_decided_entry_has_a_row_in_the_transition_table(play: Play) -> None:
    phase = Phase.NEW
    for entry in play.journal:
        key = (phase, type(entry.body))
        assert key in en.TRANSITIONS, f"{entry.body.kind} in {phase}"
        phase = en.TRANSITIONS[key]
    assert phase is play.state.phase


@given(plays())
def test_seq_rises_by_exactly_one(play: Play) -> None:
    assert [entry.seq for entry in play.journal] == list(range(1, len(play.journal) + 1))
    assert play.state.seq == len(play.journal)


def test_every_command_has_exactly_one_rule() -> None:
    assert set(en.RULES) == set(COMMANDS)
    assert len(COMMANDS) == len(set(COMMANDS))
    assert set(every_command()) == set(COMMANDS), "and a strategy that draws it"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_the_rule_of_a_command_takes_that_command(command: type[Command]) -> None:
    rule = en.RULES[command]
    annotations = [typ for name, typ in typing.get_type_hints(rule).items() if name != "return"]
    assert annotations[1] is command
    assert annotations[0] is RunState


def test_every_workers_command_carries_its_claim() -> None:
    for command in COMMANDS:
        spoken_by_a_worker = "claim" in attrs.fields_dict(command)
        assert issubclass(command, en.WorkerCommand) == spoken_by_a_worker, command


# --- The journal and the state --------------------------------------------------------------------


@given(plays())
def test_folding_the_journal_gives_the_state(play: Play) -> None:
    folded = en.fold(RUN_ID, play.journal)
    assert facts(folded) == facts(play.state)


@given(plays())
def test_the_row_of_a_run_follows_from_its_journal(play: Play) -> None:
    if play.journal:
        row = en.project(play.state)
        assert row == en.project(en.fold(RUN_ID, play.journal))
        assert row.status == en.status_of(play.state)
        assert (row.ready_at is not None) == play.state.ready
        assert (row.worker_id is not None) == (play.state.phase is Phase.RUNNING)


@given(plays())
def test_an_ended_run_takes_nothing_but_a_retry_after_failure(play: Play) -> None:
    """Besides, it learns what became of others: a fork of it, a child of a failed run."""
    for step in play.steps:
        if isinstance(step.command, en.NoteFork | en.WatchRun | en.EndChild):
            continue
        if step.before.phase.terminal and changed(step):
            assert isinstance(step.command, en.RetryRun)
            assert step.before.phase is Phase.FAILED
            assert step.after.phase is Phase.QUEUED


@given(plays())
def test_an_outcome_is_there_once_a_run_has_ended_and_only_then(play: Play) -> None:
    for step in play.steps:
        assert (step.after.outcome is not None) == step.after.phase.terminal
        assert (step.after.ended_at is not None) == step.after.phase.terminal


@given(plays())
def test_a_claim_is_held_exactly_while_the_run_is_running(play: Play) -> None:
    for step in play.steps:
        assert (step.after.claim is not None) == (step.after.phase is Phase.RUNNING)


@given(plays())
def test_each_claim_has_a_higher_epoch(play: Play) -> None:
    epochs = [e.body.epoch for e in play.journal if isinstance(e.body, en.RunClaimed)]
    assert epochs == list(range(1, len(epochs) + 1))


@given(plays())
def test_only_the_holder_of_the_claim_is_listened_to(play: Play) -> None:
    for step in play.steps:
        command = step.command
        if isinstance(command, en.WorkerCommand):
            held = step.before.claim
            if held is None or held.ref != command.claim:
                assert isinstance(step.decision, en.Rejected)
                assert step.decision.code in {"stale-claim", "not-found"}


@given(plays())
def test_ready_at_is_set_exactly_while_the_run_is_queued(play: Play) -> None:
    for step in play.steps:
        assert (step.after.ready_at is not None) == (step.after.phase is Phase.QUEUED)


@given(plays())
def test_an_ended_run_waits_for_nothing_and_is_not_paused(play: Play) -> None:
    for step in play.steps:
        if step.after.phase.terminal:
            assert not step.after.waits
            assert not step.after.paused
            assert en.next_due(step.after) is None


@given(plays())
def test_a_waiting_run_waits_for_something_that_can_be_named(play: Play) -> None:
    """Otherwise nothing could ever wake it."""
    for step in play.steps:
        if step.after.phase is Phase.WAITING:
            assert step.after.waits


@given(plays())
def test_the_delay_before_a_runs_next_attempt_is_waited_for_only_while_waiting(play: Play) -> None:
    for step in play.steps:
        if en.RUN_RETRY_CALL in step.after.waits:
            assert step.after.phase is Phase.WAITING


@given(plays())
def test_every_state_has_a_status(play: Play) -> None:
    """Paused lies over all; a waiting run shows the wait that ends first, timeouts aside."""
    for state in (step.after for step in play.steps if step.after.phase is not Phase.NEW):
        status = en.status_of(state)
        if state.paused:
            assert status is RunStatus.PAUSED
        elif state.phase is not Phase.WAITING:
            assert status == state.phase.value
        elif waits := [w for w in state.waits.values() if w.kind is not WaitKind.TIMEOUT]:
            dues = [wait.due_at for wait in waits if wait.due_at is not None]
            first = min(dues, default=None)
            kinds = {wait.kind for wait in waits if wait.due_at == first}
            shown = status.value.removeprefix("awaiting_").replace("sleeping", "sleep")
            assert shown in kinds
        assert status.terminal == state.phase.terminal


@given(plays())
def test_tasks_count_their_attempts_and_end_once(play: Play) -> None:
    for step in play.steps:
        before, after = step.before.tasks, step.after.tasks
        for call, count in before.items():
            if count in (en.SUCCEEDED, en.FAILED):
                kept = after.get(call) == count
                starts_afresh = call not in after and count == en.FAILED
                assert kept or starts_afresh, f"the outcome of {call} changed"
            else:
                assert (
                    after.get(call, count) in (en.SUCCEEDED, en.FAILED)
                    or after.get(call, count) >= count
                )


# --- Commands said twice --------------------------------------------------------------------------


@given(plays(), one_of_each())
def test_a_command_said_again_changes_nothing(play: Play, every: tuple[Command, ...]) -> None:
    """Whatever took effect is found in the state, or the claim that it was said under is over."""
    for command in every:
        probe = Play(clone(play.state), play.now, limits=play.limits, claims=play.claims)
        probe.do(command)
        told = probe.steps[0].command
        unreferenced = isinstance(told, en.AcceptEvent) and told.reference_id is not None
        if not changed(probe.steps[0]):
            continue
        if not isinstance(told, SAID_AGAIN_MEANS_AGAIN) or unreferenced:
            probe.do(told)
            assert not changed(probe.steps[1]), f"{told} took effect twice"


@pytest.mark.parametrize(
    "command",
    [
        en.PauseRun("again"),
        en.ResumeRun(),
        en.CancelRun("again"),
        en.TerminateRun("again"),
        en.RequeueRun(),
        en.StallRun("again"),
    ],
    ids=lambda command: type(command).__name__,
)
@given(plays())
def test_a_clients_command_that_took_effect_is_accepted_again(command: Command, play: Play) -> None:
    first = play.do(command)
    if not isinstance(first, en.Rejected):
        assert play.do(command) == ()


# --- Time -----------------------------------------------------------------------------------------


def due_calls(state: RunState, now: Micros) -> list[Call]:
    """List the calls whose waits are due, the one that was due first ahead."""
    due = [
        (wait.due_at, call)
        for call, wait in state.waits.items()
        if wait.due_at is not None and wait.due_at <= now
    ]
    return [call for _at, call in sorted(due, key=lambda pair: pair[0])]


@given(plays(), st.sampled_from(SPANS))
def test_time_resolves_what_is_due_and_nothing_else(play: Play, span: Micros) -> None:
    """Each wait by its own due time, the earliest first, however late the timer comes."""
    play.pass_time(span)
    play.do(en.Elapse())
    for step in play.steps:
        if isinstance(step.command, en.Elapse) and not step.before.phase.terminal:
            resolved = [
                body.call
                for body in bodies(step)
                if isinstance(
                    body, en.SleepEnded | en.RetryDue | en.WaitTimedOut | en.TimeoutReached
                )
            ]
            expected = [] if step.after.phase.terminal else due_calls(step.before, step.now)
            assert resolved == expected
            assert set(step.after.waits) <= set(step.before.waits)


@given(plays(), st.sampled_from(SPANS))
def test_a_timer_that_comes_twice_changes_nothing(play: Play, span: Micros) -> None:
    play.pass_time(span)
    play.do(en.Elapse(), standby=True)
    if play.state.phase is not Phase.NEW:
        assert play.do(en.Elapse(), standby=True) == ()


@given(plays(), st.sampled_from(SPANS))
def test_what_is_due_after_a_timer_lies_ahead(play: Play, span: Micros) -> None:
    """Or a sweep over due runs would find the same run for ever."""
    play.pass_time(span)
    play.do(en.Elapse())
    due = en.next_due(play.state)
    assert due is None or due > play.now


@given(plays())
def test_a_run_is_due_no_later_than_any_of_its_waits(play: Play) -> None:
    for step in play.steps:
        state = step.after
        dues = [wait.due_at for wait in state.waits.values() if wait.due_at is not None]
        due = en.next_due(state)
        assert all(due is not None and due <= at for at in dues)


# --- Events ---------------------------------------------------------------------------------------


@given(plays())
def test_no_event_is_lost_or_doubled(play: Play) -> None:
    """What was accepted is either unread or held by exactly one call, after every entry."""
    accepted: Counter[int] = Counter()
    state = RunState(RUN_ID)
    for entry in play.journal:
        state = en.evolve(state, entry)
        if isinstance(entry.body, en.EventAccepted):
            accepted[entry.seq] += 1
        taken = Counter(item for _name, item in state.consumed.values())
        unread = Counter(item for items in state.unread.values() for item in items)
        assert taken + unread == accepted


@given(plays())
def test_events_of_a_name_are_consumed_in_order_of_acceptance(play: Play) -> None:
    """An item that was given back stands in front again, at its old place."""
    unread: dict[str, list[int]] = {}
    for entry in play.journal:
        match entry.body:
            case en.EventAccepted(name=name):
                unread.setdefault(name, []).append(entry.seq)
            case en.EventConsumed(event=name, item=item):
                assert item == min(unread[name])
                unread[name].remove(item)
            case en.EventReturned(event=name, item=item):
                unread[name].append(item)
            case _:
                pass


@given(plays())
def test_nobody_waits_for_an_event_that_is_there(play: Play) -> None:
    """But for a wait that is due: it has timed out, however late its timer is."""
    for step in play.steps:
        for wait in step.after.waits.values():
            due = wait.due_at is not None and wait.due_at <= step.now
            if wait.kind is WaitKind.EVENT and not due:
                assert not step.after.unread.get(wait.name)


@given(plays())
def test_equal_waits_are_served_in_call_order(play: Play) -> None:
    for step in play.steps:
        for body in bodies(step):
            if isinstance(body, en.EventConsumed) and body.call in step.before.waits:
                # A wait that is due has timed out, however late its timer is: it takes nothing.
                same = [
                    call
                    for call, wait in step.before.waits.items()
                    if wait.name == body.event and (wait.due_at is None or wait.due_at > step.now)
                ]
                assert body.call == same[0]


@given(plays())
def test_an_event_is_accepted_whatever_a_live_run_is_doing(play: Play) -> None:
    probe = Play(clone(play.state), play.now, en.DEFAULT_LIMITS)
    if probe.state.phase is not Phase.NEW and not probe.state.phase.terminal:
        probe.do(en.AcceptEvent("paid", 1, "never used"))
        assert isinstance(bodies(probe.steps[0])[0], en.EventAccepted)


# --- Readiness, pause, cancel, timeout ------------------------------------------------------------


def live(play: Play) -> bool:
    """Tell whether the run exists and has not ended."""
    return play.state.phase is not Phase.NEW and not play.state.phase.terminal


@given(plays())
def test_a_run_that_waits_becomes_ready_when_a_wait_is_resolved(play: Play) -> None:
    for step in play.steps:
        resolved = step.before.waits.keys() - step.after.waits.keys()
        if step.before.phase is Phase.WAITING and resolved and not step.after.phase.terminal:
            assert step.after.phase in (Phase.QUEUED, Phase.RUNNING)


@given(plays(), st.lists(commands(), max_size=4), st.sampled_from(SPANS))
def test_a_pause_delays_and_never_loses_what_arrives(
    play: Play, told: list[Command], span: Micros
) -> None:
    """What makes a waiting run ready makes it ready after a pause too, once it is resumed."""
    if not live(play) or play.state.paused or play.state.cancel is not None:
        return
    if play.state.claim is not None:
        return
    arrivals = [c for c in told if isinstance(c, en.AcceptEvent | en.EndChild | en.WakeRun)]
    paused = Play(clone(play.state), play.now)
    paused.do(en.PauseRun())
    for side in (play, paused):
        for command in arrivals:
            side.do(command)
        side.pass_time(span)
        side.do(en.Elapse())
    assert not paused.state.ready
    if live(paused):
        paused.do(en.ResumeRun())
    assert paused.state.ready == play.state.ready
    assert paused.state.phase is play.state.phase
    assert paused.state.waits.keys() == play.state.waits.keys()


@given(plays())
def test_a_paused_run_is_handed_to_nobody(play: Play) -> None:
    for step in play.steps:
        if step.before.paused and not isinstance(step.command, en.ResumeRun | en.CancelRun):
            assert not any(isinstance(body, en.RunClaimed) for body in bodies(step))


@given(plays(), st.lists(moves(), max_size=6))
def test_a_cancellation_always_ends(play: Play, between: list[Move]) -> None:
    """Whatever happens meanwhile, the run has ended when the grace is over; no worker is needed."""
    if not live(play):
        return
    play.do(en.CancelRun("stop"))
    before = len(play.journal)
    for move in between:
        if play.state.phase.terminal:
            break
        play.play(move)
    state = play.state
    if not state.phase.terminal:
        assert state.cancel is not None
        play.now = max(play.now, state.cancel.deadline)
        play.do(en.Elapse())
    assert play.state.phase.terminal
    if not between and (state.deadline is None or state.deadline > play.now):
        assert play.state.phase is Phase.CANCELLED
    kinds = [type(entry.body) for entry in play.journal[before:]]
    assert en.RunPaused not in kinds, "a run that is being cancelled cannot be held up"


@given(plays(), st.lists(moves(), max_size=6))
def test_a_run_never_outlives_its_timeout(play: Play, between: list[Move]) -> None:
    for move in between:
        if play.state.phase.terminal:
            break
        play.play(move)
    if live(play) and play.state.deadline is not None:
        play.now = max(play.now, play.state.deadline)
        play.do(en.Elapse())
        assert play.state.phase.terminal


@given(plays())
def test_a_failed_run_that_is_retried_is_not_ended_by_what_ended_it(play: Play) -> None:
    """Neither an old timeout nor an old cancellation reaches into the new attempt."""
    if play.state.phase is Phase.FAILED:
        play.do(en.RetryRun())
        play.do(en.Elapse())
        if play.state.spec.timeout != 0:
            assert play.state.ready


@given(plays())
def test_terminate_ends_every_live_run_at_once(play: Play) -> None:
    if live(play):
        play.expect(en.TerminateRun(), en.RunCancelled)
        assert play.state.outcome is not None
        assert play.state.outcome.terminated


# --- Claims lost ----------------------------------------------------------------------------------


@given(plays())
def test_a_run_stalls_rather_than_lose_its_worker_for_ever(play: Play) -> None:
    for before, after in pairwise([RunState(RUN_ID), *(step.after for step in play.steps)]):
        assert after.claims_lost <= before.claims_lost + 1
        if after.claims_lost >= play.limits.claims_lost_max:
            assert after.phase is Phase.STALLED or after.cancel is not None or after.phase.terminal


@given(plays())
def test_a_stalled_run_says_why(play: Play) -> None:
    for step in play.steps:
        assert (step.after.stalled is not None) == (step.after.phase is Phase.STALLED)


@given(plays())
def test_a_journal_at_its_limit_grows_no_further_by_its_worker(play: Play) -> None:
    limits = attrs.evolve(LIMITS, entries_max=3)
    for move in (m for m in map(_worker_move, play.steps) if m is not None):
        probe = Play(clone(play.state), play.now, limits)
        if probe.state.claim is not None and probe.state.seq >= limits.entries_max:
            probe.do(move)
            written = bodies(probe.steps[0])
            if isinstance(move, _GROWING):
                assert all(isinstance(body, en.RunFailed) for body in written), move


_GROWING = (
    en.RecordSuccess,
    en.RecordFailure,
    en.StartSleep,
    en.StartTimeout,
    en.AwaitEvent,
    en.AwaitChild,
    en.StartChild,
    en.RecordValue,
)


def _worker_move(step: Step) -> Command | None:
    if isinstance(step.command, en.WorkerCommand):
        return attrs.evolve(step.command, claim=CURRENT)
    return None
