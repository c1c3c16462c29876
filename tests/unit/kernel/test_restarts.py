"""The pure rules: the restart window against a naive oracle, backoff, and what specs refuse."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, strategies as st

from aiki_actors.kernel import (
    Backoff,
    ChildSpec,
    SpecError,
    SupervisorSpec,
    add_restart,
)
from tests.unit.kernel.probes import probe

times = st.lists(st.integers(0, 60), min_size=1, max_size=40).map(sorted)


@given(times=times, period_s=st.integers(1, 20))
def test_the_restart_window_agrees_with_counting_all_restarts(
    times: list[int], period_s: int
) -> None:
    """The window that forgets has the length that one gets by counting the whole past."""
    window: tuple[float, ...] = ()
    for n, now_s in enumerate(times):
        window = add_restart(window, now_s, period_s)
        recent = [at_s for at_s in times[: n + 1] if at_s >= now_s - period_s]
        assert list(window) == recent[::-1]


def test_a_restart_exactly_one_period_old_still_counts() -> None:
    assert add_restart((0.0,), 10.0, 10.0) == (10.0, 0.0)
    assert add_restart((0.0,), 10.5, 10.0) == (10.5,)


@given(
    nth=st.integers(1, 2000),
    seed=st.integers(),
    initial_s=st.floats(0, 10),
    factor=st.floats(1, 5),
    max_s=st.floats(0, 60),
    jitter=st.floats(0, 1),
)
def test_a_backoff_stays_within_its_bounds(
    nth: int, seed: int, initial_s: float, factor: float, max_s: float, jitter: float
) -> None:
    backoff = Backoff(initial_s, factor, max_s, jitter)
    delay_s = backoff.delay_s(nth, Random(seed))
    if nth == 1:
        assert delay_s == 0
    full_s = min(initial_s * factor ** min(nth - 2, 64), max_s)
    assert 0 <= delay_s <= max_s
    assert nth == 1 or full_s * (1 - jitter) - 1e-9 <= delay_s <= full_s


def test_a_backoff_grows_by_its_factor() -> None:
    backoff = Backoff(1, 2, 5, 0)
    assert [backoff.delay_s(n, Random(0)) for n in range(1, 7)] == [0, 1, 2, 4, 5, 5]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"initial_s": -1}, "initial_s is -1"),
        ({"factor": 0.5}, "factor is 0.5"),
        ({"max_s": math.inf}, "max_s is inf"),
        ({"jitter": 2}, "jitter is 2"),
        ({"jitter": math.nan}, "jitter is nan"),
    ],
)
def test_a_bad_backoff_is_refused_by_field_and_value(fields: dict[str, float], name: str) -> None:
    with pytest.raises(SpecError, match=name):
        Backoff(**fields)


@pytest.mark.parametrize("bad", ["", "a/b"])
def test_a_bad_id_is_refused(bad: str) -> None:
    with pytest.raises(SpecError, match=r"ChildSpec\.id is"):
        probe([], bad)
    with pytest.raises(SpecError, match=r"SupervisorSpec\.id is"):
        SupervisorSpec(id=bad)


@pytest.mark.parametrize("bad", [-1, math.inf, math.nan])
def test_an_actor_may_not_take_for_ever_to_stop(bad: float) -> None:
    with pytest.raises(SpecError, match=r"ChildSpec\.shutdown_s of 'a'"):
        probe([], shutdown_s=bad)


def test_a_start_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(SpecError, match=r"ChildSpec\.start of 'a'"):
        ChildSpec("a", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"intensity": -1}, r"SupervisorSpec\.intensity is -1"),
        ({"period_s": 0}, r"SupervisorSpec\.period_s is 0"),
        ({"period_s": math.inf}, r"SupervisorSpec\.period_s is inf"),
        ({"shutdown_s": math.nan}, r"SupervisorSpec\.shutdown_s is nan"),
    ],
)
def test_a_bad_supervisor_is_refused_by_field_and_value(fields: dict[str, int], name: str) -> None:
    with pytest.raises(SpecError, match=name):
        SupervisorSpec(**fields)  # type: ignore[arg-type]


def test_two_children_of_one_id_are_refused() -> None:
    with pytest.raises(SpecError, match="'a' twice"):
        SupervisorSpec(children=(probe([]), probe([])))
