"""Retry policies: delays as documented, and which errors end them."""

import itertools
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from aiki_sdk import (
    ErrorInfo,
    InvalidRequest,
    NonRetryable,
    Retry,
    RetryAfter,
    TaskFailed,
    TaskTimeout,
    dumps,
    loads,
)
from aiki_sdk._durations import DURATION_S_MAX

chance = st.floats(0, 1, exclude_max=True)
delays = st.floats(0, 10_000)
factors = st.floats(1, 10)
maxima = st.none() | delays


class CardDeclined(ValueError):
    pass


def test_never_is_one_attempt() -> None:
    assert Retry.never() == Retry()
    assert Retry.never().delay_after(1, 0.5) is None


def test_fixed_waits_the_same_time_and_stops() -> None:
    policy = Retry.fixed(3, timedelta(minutes=1))
    assert [policy.delay_after(attempt, 0.9) for attempt in (1, 2, 3)] == [60, 60, None]


def test_exponential_grows_up_to_its_maximum() -> None:
    policy = Retry.exponential(max_attempts=6, base_delay=0.5, max_delay=3)
    assert [policy.delay_after(n, 0) for n in range(1, 7)] == [0.5, 1, 2, 3, 3, None]


def test_jitter_is_a_share_and_the_cap_comes_after() -> None:
    policy = Retry.jittered(max_attempts=9, base_delay=10, factor=2, max_delay=15)
    assert policy.delay_after(1, 0.25) == 2.5
    assert policy.delay_after(2, 0.5) == 10
    assert policy.delay_after(3, 0.5) == 15


def test_delays_are_rounded_up_to_a_millisecond() -> None:
    assert Retry.fixed(2, 0.0001).delay_after(1, 0) == 0.001
    assert Retry.fixed(2, 0.1 * 3).delay_after(1, 0) == 0.3
    assert Retry.fixed(2, 1.2345).delay_after(1, 0) == 1.235


@given(delays, factors, maxima)
def test_exponential_delays_never_shrink_and_never_exceed_the_cap(
    base: float, factor: float, maximum: float | None
) -> None:
    policy = Retry.exponential(5000, base, factor, maximum)
    found = [policy.delay_after(attempt, 0) for attempt in (*range(1, 60), 3000, 4999)]
    numbers = [delay for delay in found if delay is not None]
    assert len(numbers) == len(found)
    assert all(one <= two for one, two in itertools.pairwise(numbers))
    cap = DURATION_S_MAX if maximum is None else maximum
    assert all(0 <= delay <= math.ceil(cap * 1000) / 1000 for delay in numbers)


@given(delays, factors, maxima, st.integers(1, 4000), chance)
def test_jittered_delays_stay_below_the_exponential_ones(
    base: float, factor: float, maximum: float | None, attempt: int, value: float
) -> None:
    jittered = Retry.jittered(5000, base, factor, maximum).delay_after(attempt, value)
    full = Retry.exponential(5000, base, factor, maximum).delay_after(attempt, value)
    assert jittered is not None
    assert full is not None
    assert 0 <= jittered <= full


@given(delays, chance)
def test_more_chance_is_never_a_shorter_delay(base: float, value: float) -> None:
    policy = Retry.jittered(3, base)
    low, high = policy.delay_after(1, value / 2), policy.delay_after(1, value)
    assert low is not None
    assert high is not None
    assert low <= high


def test_only_and_never_decide_by_type() -> None:
    policy = Retry.fixed(3, 1, only=(ValueError, TimeoutError), never=(CardDeclined,))
    assert policy.retries(ValueError())
    assert policy.retries(UnicodeError())
    assert policy.retries(TaskTimeout())
    assert not policy.retries(CardDeclined())
    assert not policy.retries(KeyError())


def test_what_is_no_exception_is_never_retried() -> None:
    policy = Retry.fixed(3, 1)
    assert not policy.retries(KeyboardInterrupt())
    assert not policy.retries(NonRetryable("no"))
    assert policy.retries(OSError())


def test_a_failed_task_counts_by_its_recorded_error() -> None:
    failed = TaskFailed(ErrorInfo(f"{__name__}.CardDeclined", "no"))
    assert Retry.fixed(3, 1).retries(failed)
    assert Retry.fixed(3, 1, only=(CardDeclined,)).retries(failed)
    assert Retry.fixed(3, 1, only=(TaskFailed,)).retries(failed)
    assert not Retry.fixed(3, 1, never=(CardDeclined,)).retries(failed)


def test_a_recorded_error_counts_by_name() -> None:
    policy = Retry.fixed(3, 1, only=(CardDeclined,))
    assert policy.retries_recorded(ErrorInfo(f"{__name__}.CardDeclined", "no"))
    assert not policy.retries_recorded(ErrorInfo("ValueError", "no"))
    assert not Retry.fixed(3, 1).retries_recorded(ErrorInfo("ValueError", "no", retryable=False))


def test_retry_after_replaces_the_delay_but_not_the_attempts() -> None:
    policy = Retry.fixed(2, 60, only=(ValueError,))
    error = Retry.after(timedelta(seconds=5), "rate limited")
    assert isinstance(error, RetryAfter)
    assert policy.delay_on(1, error, 0) == 5
    assert policy.delay_on(2, error, 0) is None
    assert policy.delay_on(1, ValueError(), 0) == 60
    assert policy.delay_on(1, KeyError(), 0) is None


policies = st.one_of(
    st.just(Retry.never()),
    st.builds(Retry.fixed, st.integers(1, 99), delays, only=st.just((ValueError, CardDeclined))),
    st.builds(Retry.exponential, st.integers(1, 99), delays, factors, maxima),
    st.builds(
        Retry.jittered, st.integers(1, 99), delays, factors, maxima, never=st.just((OSError,))
    ),
)


@given(policies, st.integers(1, 99), chance)
def test_a_policy_decides_alike_after_the_wire(policy: Retry, attempt: int, value: float) -> None:
    body = loads(dumps(policy.to_json()))
    assert isinstance(body, dict)
    sent = Retry.from_json(body)
    assert sent.delay_after(attempt, value) == policy.delay_after(attempt, value)
    for error in (ValueError(), CardDeclined(), OSError(), ConnectionError(), KeyError()):
        assert sent.retries(error) == policy.retries(error), error
    assert sent.to_json() == policy.to_json()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Retry.fixed(0, 1), "max_attempts=0"),
        (lambda: Retry.fixed(True, 1), "max_attempts=True"),
        (lambda: Retry.fixed(1.5, 1), r"max_attempts=1\.5"),  # type: ignore[arg-type]
        (lambda: Retry.fixed(2, -1), "delay=-1"),
        (lambda: Retry.fixed(2, float("nan")), "delay=nan"),
        (lambda: Retry.fixed(2, "1"), "delay='1'"),  # type: ignore[arg-type]
        (lambda: Retry.exponential(2, 1, factor=0.5), r"factor=0\.5"),
        (lambda: Retry.exponential(2, 1, max_delay=timedelta(days=-1)), "max_delay="),
        (lambda: Retry.fixed(2, 1, only=(3,)), r"only=\(3,\)"),  # type: ignore[arg-type]
        (lambda: Retry.fixed(2, 1, never=(int,)), "never="),  # type: ignore[arg-type]
        (lambda: Retry.after(-3), "delay=-3"),
        (lambda: Retry.from_json({"kind": "sometimes", "max_attempts": 2}), "kind='sometimes'"),
        (lambda: Retry.from_json({"kind": "fixed"}), "max_attempts=None"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(make: Any, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        make()
