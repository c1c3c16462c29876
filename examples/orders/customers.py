"""The customers as a process of their own: they order, pay and cancel over HTTP.

The server may go away at any time and come back. The client bears short outages by itself; a longer
one only costs another round: everything that customers do may be done again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from aiki_sdk import Client, Unavailable

from .plan import Planned, make_plan
from .service import take_orders

DEADLINE_S: Final = 180.0
"""Seconds in which all orders must have ended, or the demo has failed."""

PAUSE_S: Final = 0.25
"""Seconds before another round."""


LOOK_S: Final = 0.2
"""Between two looks at who may pay: another process says it, by a file."""


@frozen
class Till:
    """Where customers pay, one group after another.

    Attributes:
        path: a file with a byte for each group that may pay by now.
        groups: how many there are.
        plan: all orders.

    """

    path: Path
    groups: int
    plan: Sequence[Planned]

    async def turn(self, planned: Planned) -> None:
        """Return when it is this customer's turn, and a moment of their own later."""
        payers = [one.order.id for one in self.plan if one.fate.pays]
        group = payers.index(planned.order.id) * self.groups // len(payers)
        while self.path.stat().st_size <= group:  # noqa: ASYNC110  # as LOOK_S says
            await trio.sleep(LOOK_S)
        await trio.sleep(planned.acts_after_s)


async def order_all(url: str, orders: int, seed: int, till: Path, groups: int) -> int:
    """Be all customers until every order has ended; return how many outages they met."""
    plan = make_plan(orders, seed)
    turn = Till(till, groups, plan).turn
    outages = 0
    with trio.fail_after(DEADLINE_S):
        async with Client(url) as client:
            done = False
            while not done:
                try:
                    await take_orders(client, plan, turn)
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
    parser.add_argument("--till", type=Path, required=True, help="says how many groups may pay")
    parser.add_argument("--groups", type=int, required=True, help="in which customers pay")
    outages = trio.run(partial(order_all, **vars(parser.parse_args(arguments))))
    sys.stdout.write(f"all orders ended; {outages} outages of the server\n")


if __name__ == "__main__":
    main()
