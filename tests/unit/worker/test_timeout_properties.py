"""Durable timeouts under replay: whatever they cut off, they cut it off at the same point again.

As `test_replay_properties.py`, with programs in which timeouts stand around anything and in one
another: tasks, waits, races, nurseries, shielded clean-up.
"""

from __future__ import annotations

from random import Random

from hypothesis import given, settings, strategies as st

from tests.unit.worker.fake_server import Plan
from tests.unit.worker.programs import Step, timed_programs
from tests.unit.worker.test_replay_properties import (
    _operated,
    check_ended,
    check_replays,
    execute,
    recorded_tasks,
)

_seconds = st.floats(0, 2).map(lambda second: round(second, 2))
_sends = st.lists(
    st.tuples(_seconds, st.sampled_from(["go", "stop"]), st.integers(0, 9)), max_size=3
)
_plans = st.builds(
    lambda sends, warm_max, jitter, seed: Plan(sorted(sends), (), warm_max, jitter, seed),
    _sends,
    st.sampled_from([10, 10, 0]),
    st.booleans(),
    st.integers(0, 1_000),
)


@given(timed_programs(), _plans, st.random_module())
@settings(max_examples=150)
def test_a_full_replay_reaches_the_same_timeouts_at_the_same_points(
    steps: list[Step], plan: Plan, shuffle: Random
) -> None:
    life, seen, _executed = execute(steps, plan)
    check_ended(life)
    check_replays(steps, plan, life, seen if plan.warm_max else None)


@given(timed_programs(), _plans, st.random_module())
@settings(max_examples=40)
def test_a_run_with_timeouts_resumes_from_every_prefix_of_its_journal(
    steps: list[Step], plan: Plan, shuffle: Random
) -> None:
    life, _seen, _executed = execute(steps, plan)
    check_ended(life)
    for number, cut in enumerate(life.cuts[:-1]):
        prefix = life.journal[:cut]
        resumed, seen, executed = execute(steps, plan, number + 1, life, cut)
        check_ended(resumed)
        assert resumed.journal[:cut] == prefix
        assert not recorded_tasks(prefix) & set(executed)
        check_replays(steps, plan, resumed, seen if plan.warm_max else None)


@given(timed_programs(), _operated(), st.data(), st.random_module())
@settings(max_examples=60)
def test_timeouts_and_an_operator_s_pauses_and_cancellation_go_together(
    steps: list[Step], plan: Plan, data: st.DataObject, shuffle: Random
) -> None:
    life, _seen, _executed = execute(steps, plan)
    check_ended(life)
    for number in range(3):
        cut = data.draw(st.sampled_from(life.cuts[:-1] or (0,)))
        if not cut:
            return
        prefix = life.journal[:cut]
        resumed, _seen, executed = execute(steps, plan, number + 1, life, cut)
        check_ended(resumed)
        assert not recorded_tasks(prefix) & set(executed)
        life = resumed
