"""What the demo's customers will do, and how each order must therefore end.

Made from a seed, so that the process that serves, the one that goes on after the crash and the one
that verifies have the same plan without telling each other.
"""

from __future__ import annotations

import random
from datetime import timedelta
from enum import StrEnum
from typing import Final

from attrs import frozen

from .workflows import DECLINED_CARD, Ending, Item, Order, Payment

FORTNIGHT: Final = timedelta(days=14)


class Fate(StrEnum):
    """What becomes of an order."""

    DELIVERED = "delivered"
    DECLINED = "declined"
    EXPIRED = "expired"
    REVOKED = "cancelled at once"
    CANCELLED = "cancelled while unpaid"
    RECALLED = "cancelled in transit"

    @property
    def ending(self) -> Ending | None:
        """The ending that the order's receipt says; None: the run is cancelled."""
        return Ending(self.value) if self.value in list(Ending) else None

    @property
    def pays(self) -> bool:
        """Whether the customer pays."""
        return self in {Fate.DELIVERED, Fate.DECLINED, Fate.RECALLED}


SHARES: Final = (
    (Fate.CANCELLED, 0.08),
    (Fate.DECLINED, 0.06),
    (Fate.EXPIRED, 0.06),
    (Fate.REVOKED, 0.04),
    (Fate.RECALLED, 0.04),
)
"""How large a part of the orders ends otherwise than delivered; each at least once, if it can."""


@frozen
class Planned:
    """One order with its fate.

    Attributes:
        acts_after_s: seconds after which the customer pays or cancels at once.

    """

    order: Order
    fate: Fate
    acts_after_s: float
    shaky_line: bool

    @property
    def total_cents(self) -> int:
        """What the order's receipt must say."""
        return sum(item.quantity * item.price_cents for item in self.order.items)

    @property
    def payment(self) -> Payment:
        """What the customer pays with."""
        card = DECLINED_CARD if self.fate is Fate.DECLINED else "4242-4242-4242-4242"
        return Payment(self.order.id, card, self.shaky_line)

    @property
    def executions(self) -> int:
        """How many times task code runs for it if nothing goes wrong, shipment included."""
        check_and_reserve = 1 + len(self.order.items)
        if self.fate is Fate.DELIVERED:
            return check_and_reserve + 4 + self.shaky_line
        if self.fate is Fate.RECALLED:
            return check_and_reserve + 3 + self.shaky_line
        return check_and_reserve + 1 + (self.fate is Fate.DECLINED)


def make_plan(orders: int, seed: int) -> tuple[Planned, ...]:
    """Plan so many orders."""
    rng = random.Random(seed)
    fates: list[Fate] = []
    for fate, share in SHARES:
        fates += [fate] * max(1, round(orders * share))
    fates = (fates + [Fate.DELIVERED] * orders)[:orders]
    rng.shuffle(fates)
    return tuple(_planned(number, fate, rng) for number, fate in enumerate(fates, start=1))


def _planned(number: int, fate: Fate, rng: random.Random) -> Planned:
    items = tuple(
        Item(f"sku-{number}-{place}", rng.randint(1, 5), rng.randint(100, 9_999))
        for place in range(rng.randint(1, 4))
    )
    order = Order(
        id=f"order-{number}",
        items=items,
        pay_within=timedelta(seconds=0.8) if fate is Fate.EXPIRED else FORTNIGHT,
        transit=FORTNIGHT if fate is Fate.RECALLED else timedelta(seconds=rng.uniform(0.2, 0.6)),
    )
    at_once = fate is Fate.REVOKED
    return Planned(
        order=order,
        fate=fate,
        acts_after_s=rng.uniform(0.0, 0.2) if at_once else rng.uniform(0.1, 2.0),
        shaky_line=fate is not Fate.DECLINED and rng.random() < 1 / 3,
    )
