"""A client's connections: used again, bounded, closed when they are too many or too old."""

from __future__ import annotations

import httpx
import pytest
from attrs import define, field

from aiki_sdk.http import HttpSettings
from aiki_sdk.http._exchange import AsyncExchange
from aiki_sdk.http._lanes import Lanes, Turns


@define(eq=False)
class Made:
    """Makes clients, and the time."""

    now: float = 0.0
    clients: list[httpx.AsyncClient] = field(factory=lambda: list[httpx.AsyncClient]())

    def make(self) -> httpx.AsyncClient:
        self.clients.append(httpx.AsyncClient())
        return self.clients[-1]

    def lanes(self, *, idle_max: int = 2, idle_s: float = 20.0) -> Lanes:
        return Lanes(self.make, idle_max, idle_s, lambda: self.now)

    def open(self) -> list[bool]:
        return [not client.is_closed for client in self.clients]


def asked(pool_s: float) -> httpx.Request:
    timeout = httpx.Timeout(1.0, pool=pool_s)
    return httpx.Request("GET", "http://there/", extensions={"timeout": timeout.as_dict()})


@pytest.mark.trio
async def test_the_lane_that_was_freed_last_is_used_next() -> None:
    made = Made()
    lanes = made.lanes()
    first, second = lanes.hold(), lanes.hold()
    assert first is not second
    await lanes.free(first)
    await lanes.free(second)
    assert lanes.hold() is second
    assert lanes.hold() is first
    assert len(made.clients) == 2
    await lanes.aclose()


@pytest.mark.trio
async def test_no_more_lanes_are_kept_than_allowed_and_the_oldest_goes() -> None:
    made = Made()
    lanes = made.lanes(idle_max=2)
    for lane in [lanes.hold() for _ in range(5)]:
        await lanes.free(lane)
    assert lanes.count == 2
    assert made.open() == [False, False, False, True, True]
    await lanes.aclose()


@pytest.mark.trio
async def test_a_lane_that_nobody_needs_is_closed_when_it_is_old() -> None:
    made = Made()
    lanes = made.lanes(idle_max=10, idle_s=20.0)
    for lane in [lanes.hold() for _ in range(3)]:
        await lanes.free(lane)
    for made.now in (10.0, 19.0, 21.0, 22.0, 23.0):
        await lanes.free(lanes.hold())
    assert made.open() == [False, False, True]
    await lanes.aclose()


@pytest.mark.trio
async def test_closing_closes_what_is_held_too_and_what_is_freed_later_stays_closed() -> None:
    made = Made()
    lanes = made.lanes()
    held = lanes.hold()
    await lanes.free(lanes.hold())
    await lanes.aclose()
    assert not any(made.open())
    await lanes.free(held)
    assert lanes.count == 0
    with pytest.raises(httpx.CloseError):
        lanes.hold()


@pytest.mark.trio
async def test_who_gets_no_turn_in_time_is_told_and_a_turn_given_back_is_taken() -> None:
    turns = Turns(1)
    await turns.take(asked(0.01))
    with pytest.raises(httpx.PoolTimeout, match="every connection is in use"):
        await turns.take(asked(0.01))
    turns.give_back()
    await turns.take(asked(0.01))


@pytest.mark.trio
async def test_a_stream_has_its_turn_until_it_is_closed_and_gives_it_back_once() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"piece"))
    exchange = AsyncExchange(HttpSettings(waiting_max=1), transport)
    chunks = await exchange.open(asked(0.01))
    with pytest.raises(httpx.PoolTimeout):
        await exchange.open(asked(0.01))
    await chunks.aclose()
    await chunks.aclose()
    other = await exchange.open(asked(0.01))
    with pytest.raises(httpx.PoolTimeout):
        await exchange.request(asked(0.01), waits=True)
    assert (await exchange.request(asked(0.01), waits=False)).content == b"piece"
    await other.aclose()
    await exchange.aclose()
    for _ in range(2):  # a turn that led to nothing is given back
        with pytest.raises(httpx.CloseError):
            await exchange.request(asked(0.01), waits=True)
        with pytest.raises(httpx.CloseError):
            await exchange.open(asked(0.01))
