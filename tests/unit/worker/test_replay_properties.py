"""Replay: whatever the schedule, the network and the moment of the crash, a run takes one way.

The programs are those of `programs.py`; the server is the real engine behind a network on which
replies and pushes overtake each other. No test here has a case of its own: see `test_replay.py`
for the rules one by one.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings, strategies as st

from aiki_actors import engine as e
from aiki_actors.worker import idempotency_key
from tests.unit.worker.fake_server import RUN_ID, Life, Plan, live
from tests.unit.worker.programs import Step, observe, program, programs

_seconds = st.floats(0, 2).map(lambda second: round(second, 2))
_sends = st.lists(
    st.tuples(_seconds, st.sampled_from(["go", "stop"]), st.integers(0, 9)), max_size=4
)
_plans = st.builds(
    lambda sends, warm_max, jitter, seed: Plan(sorted(sends), (), warm_max, jitter, seed),
    _sends,
    st.sampled_from([10, 10, 0]),
    st.booleans(),
    st.integers(0, 1_000),
)


@st.composite
def _operated(draw: st.DrawFn) -> Plan:
    """Draw a plan in which an operator pauses and resumes the run, and perhaps cancels it."""
    plan = draw(_plans)
    commands: list[tuple[float, e.Command]] = []
    if draw(st.booleans()):
        paused = draw(_seconds)
        commands += [(paused, e.PauseRun()), (paused + draw(_seconds) + 0.1, e.ResumeRun())]
    if draw(st.booleans()):
        after = commands[-1][0] if commands else 0.0
        commands.append((after + draw(_seconds), e.CancelRun("enough")))
    return Plan(plan.sends, commands, plan.warm_max, plan.jitter, plan.seed)


def execute(
    steps: list[Step], plan: Plan, life: int = 0, before: Life | None = None, cut: int | None = None
) -> tuple[Life, list[str], list[str]]:
    """Live once; return the life, what the code was given, and the tasks that were begun."""
    diary = observe()
    journal = () if before is None else before.journal[:cut]
    cuts = () if before is None else before.cuts
    lived = live(program, (steps,), plan, journal=journal, cuts=cuts, life=life)
    return lived, diary.seen, diary.executed


def outcome_of(life: Life) -> tuple[Any, ...]:
    """Return what clients see of a run's end; the moment of it aside."""
    outcome = life.state.outcome
    error = None if outcome is None or outcome.error is None else outcome.error.message
    return life.state.phase, None if outcome is None else outcome.output, error


def recorded_tasks(journal: tuple[e.Entry, ...]) -> set[str]:
    """Return the idempotency keys of the task calls that have an outcome."""
    return {
        idempotency_key(RUN_ID, entry.body.call)
        for entry in journal
        if isinstance(entry.body, e.TaskSucceeded | e.TaskFailed)
    }


def check_ended(life: Life) -> None:
    """Every run ends, and never because its code and its journal seem not to fit."""
    assert life.state.phase.terminal, life.state.phase
    outcome = life.state.outcome
    assert outcome is not None
    if outcome.error is not None:
        assert outcome.error.code != "divergence", outcome.error.message
    assert e.fold(RUN_ID, life.journal).phase is life.state.phase


def check_replays(steps: list[Step], plan: Plan, life: Life, seen: list[str] | None) -> None:
    """Replaying the whole journal gives the same, and executes nothing that has an outcome."""
    cut = len(life.before_end)
    for number in range(2):
        again, seen_again, executed = execute(steps, plan, 100 + number, life, cut)
        assert outcome_of(again) == outcome_of(life)
        if seen is not None:
            assert seen_again == seen
        assert not recorded_tasks(life.before_end) & set(executed)


@given(programs(), _plans, st.random_module())
@settings(max_examples=150)
def test_a_full_replay_makes_the_same_calls_in_the_same_order_and_gives_the_same_result(
    steps: list[Step], plan: Plan, shuffle: Random
) -> None:
    life, seen, _executed = execute(steps, plan)
    check_ended(life)
    check_replays(steps, plan, life, seen if plan.warm_max else None)


@given(programs(), _operated(), st.data(), st.random_module())
@settings(max_examples=150)
def test_a_run_resumed_from_any_prefix_of_its_journal_ends_and_repeats_no_recorded_task(
    steps: list[Step], plan: Plan, data: st.DataObject, shuffle: Random
) -> None:
    life, _seen, _executed = execute(steps, plan)
    check_ended(life)
    for number in range(3):
        cut = data.draw(st.sampled_from(life.cuts[:-1] or (0,)))
        if not cut:
            return
        prefix = life.journal[:cut]
        resumed, seen, executed = execute(steps, plan, number + 1, life, cut)
        check_ended(resumed)
        assert resumed.journal[:cut] == prefix
        assert not recorded_tasks(prefix) & set(executed)
        if plan.commands:
            check_ended(execute(steps, plan, 50, resumed, len(resumed.before_end))[0])
        else:
            check_replays(steps, plan, resumed, seen if plan.warm_max else None)
        life = resumed
