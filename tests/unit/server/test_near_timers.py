"""The heap of near timers, against a plain dictionary."""

from __future__ import annotations

from hypothesis import given, strategies as st

from aiki_actors.engine import Micros
from aiki_actors.server._near_timers import _SLACK, NearTimers

run_ids = st.sampled_from(["a", "b", "c", "d", "e"])
step = st.one_of(
    st.tuples(st.just("put"), run_ids, st.integers(0, 20)),
    st.tuples(st.just("drop"), run_ids),
    st.tuples(st.just("pop"), st.integers(0, 20), st.integers(1, 3)),
    st.tuples(st.just("keep"), st.integers(1, 5)),
)


@given(st.lists(step, max_size=100))
def test_timers_agree_with_a_dictionary(steps: list[tuple[object, ...]]) -> None:
    timers = NearTimers()
    model: dict[str, int] = {}
    for one in steps:
        ordered = sorted((due, run_id) for run_id, due in model.items())
        match one:
            case ("put", str(run_id), int(due)):
                timers.put(run_id, Micros(due))
                model[run_id] = due
            case ("drop", str(run_id)):
                assert timers.drop(run_id) == (model.pop(run_id, None) is not None)
            case ("pop", int(now), int(limit)):
                expected = [run_id for due, run_id in ordered if due <= now][:limit]
                assert timers.pop_due(Micros(now), limit) == expected
                for run_id in expected:
                    del model[run_id]
            case ("keep", int(count)):
                if count <= len(model):
                    assert timers.keep_first(count) == ordered[count - 1]
                    model = {run_id: due for due, run_id in ordered[:count]}
            case _:
                raise AssertionError(one)
        assert len(timers) == len(model)
        assert timers.first() == min(model.values(), default=None)


def test_stale_entries_do_not_pile_up() -> None:
    timers = NearTimers()
    for due in range(20_000):
        timers.put("busy", Micros(due))
        timers.put("other", Micros(due))
        timers.drop("other")
        assert len(timers._heap) <= 2 * len(timers) + _SLACK + 1
