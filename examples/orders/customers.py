"""The customers as a process of their own: they order, pay and cancel over HTTP.

The server may go away at any time and come back. The client bears short outages by itself; a longer
one only costs another round: everything that customers do may be done again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

import trio

from aiki_sdk import Client, Unavailable

from .plan import make_plan
from .service import take_orders

DEADLINE_S: Final = 180.0
"""Seconds in which all orders must have ended, or the demo has failed."""

PAUSE_S: Final = 0.25
"""Seconds before another round."""


async def order_all(url: str, orders: int, seed: int, pace: float) -> int:
    """Be all customers until every order has ended; return how many outages they met."""
    plan = make_plan(orders, seed)
    outages = 0
    with trio.fail_after(DEADLINE_S):
        async with Client(url) as client:
            done = False
            while not done:
                try:
                    await take_orders(client, plan, pace)
                    done = True
                except* Unavailable:
                    outages += 1
                    await trio.sleep(PAUSE_S)
    return outages


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--orders", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--pace", type=float, default=1.0, help="how many times as slow")
    given = parser.parse_args(arguments)
    outages = trio.run(order_all, given.url, given.orders, given.seed, given.pace)
    sys.stdout.write(f"all orders ended; {outages} outages of the server\n")


if __name__ == "__main__":
    main()
