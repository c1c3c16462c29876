"""The rate limiter: an average and a burst for each address, and a bound on addresses."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from aiki_gateway._rate import RateLimiter


async def test_a_burst_is_let_through_and_then_the_average(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limiter = RateLimiter(10.0, 3, 100)

    assert [limiter.take("a") for _ in range(3)] == [0.0] * 3
    assert limiter.take("a") == pytest.approx(0.1)
    assert limiter.take("b") == 0.0
    await trio.sleep(0.1)
    assert limiter.take("a") == 0.0
    assert limiter.take("a") > 0
    assert limiter.refused == 2
    await trio.sleep(1_000)
    assert [limiter.take("a") == 0.0 for _ in range(4)] == [True, True, True, False]


async def test_addresses_are_bounded_and_the_idlest_is_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limiter = RateLimiter(1.0, 1, 2)
    for address in ("a", "b", "a", "c"):
        limiter.take(address)

    assert limiter.take("a") > 0
    assert limiter.take("b") == 0.0  # forgotten, so that it starts afresh
