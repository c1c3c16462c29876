"""An order, from checking it to the parcel at the door: values, tasks, an event, two workflows.

Read this first. It is ordinary Trio code; what makes it survive a crash are two decorators. Every
`await` of a task, a sleep, an event or a child is recorded when it ends, and never done again once
it is. `effect()` only notes for the demo that a task's code really ran; take it away and nothing
changes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum

import trio
from attrs import frozen

from aiki_sdk import Event, Retry, Run, TaskFailed, WaitTimeout, current_task, task, workflow

from .effects import effect


@frozen
class Item:
    sku: str
    quantity: int
    price_cents: int


@frozen
class Order:
    id: str
    items: tuple[Item, ...]
    pay_within: timedelta
    transit: timedelta


@frozen
class Payment:
    order_id: str
    card: str
    shaky_line: bool = False  # the bank cannot be reached at the first attempt


class Ending(StrEnum):
    DELIVERED = "delivered"
    DECLINED = "declined"
    EXPIRED = "expired"


@frozen
class Receipt:
    order_id: str
    ending: Ending
    total_cents: int
    tracking: str | None = None


DECLINED_CARD = "4000-0000-0000-0002"
payment_received = Event("payment-received", Payment)


class CardDeclined(Exception):
    """The bank said no; asking again does not help."""


@task
async def check_order(order: Order) -> int:
    with effect():
        await trio.sleep(0.05)
        return sum(item.quantity * item.price_cents for item in order.items)


@task
async def reserve_stock(order_id: str, item: Item) -> str:
    with effect():
        await trio.sleep(0.02 * item.quantity)
        return f"{order_id}/{item.sku}"


@task(retry=Retry.fixed(max_attempts=5, delay=0.2))
async def release_stock(order_id: str) -> str:
    with effect():
        await trio.sleep(0.03)
        return f"{order_id} is free again"


@task(retry=Retry.exponential(max_attempts=4, base_delay=0.2, never=(CardDeclined,)), timeout=10)
async def capture_payment(payment: Payment) -> str:
    with effect():
        await trio.sleep(0.08)
        if payment.card == DECLINED_CARD:
            raise CardDeclined(payment.order_id)
        if payment.shaky_line and current_task().attempt == 1:
            raise ConnectionError("the bank did not answer")
        return f"charge-{current_task().idempotency_key[:8]}"


@task  # a plain function: it runs in a thread, and may block
def render_invoice(order: Order, charge: str) -> str:
    with effect():
        time.sleep(0.03)
        return f"invoice for {order.id}, paid by {charge}"


@task
async def print_label(order_id: str) -> str:
    with effect():
        await trio.sleep(0.04)
        return f"parcel-{order_id}"


@task
async def hand_over(label: str) -> str:
    with effect():
        await trio.sleep(0.04)
        return f"{label}-signed"


@workflow(name="shipment", version="1.0.0")
async def ship(run: Run, order: Order) -> str:
    label = await print_label(order.id)
    await run.sleep("in-transit", order.transit)
    return await hand_over(label)


@asynccontextmanager
async def reserved(order: Order) -> AsyncGenerator[None]:
    """Hold an order's items, all of them at once; give them back if the block is not completed."""
    try:
        async with trio.open_nursery() as nursery:
            for item in order.items:
                nursery.start_soon(reserve_stock, order.id, item)
        yield
    except BaseException:  # whatever the reason: failure, timeout, or the customer's cancellation
        with trio.CancelScope(shield=True):
            await release_stock(order.id)
        raise


@workflow(name="order", version="1.0.0", events=[payment_received])
async def process_order(run: Run, order: Order) -> Receipt:
    total = await check_order(order)
    try:
        async with reserved(order):
            payment = await run.wait(payment_received, timeout=order.pay_within)
            charge = await capture_payment(payment)
    except WaitTimeout:
        return Receipt(order.id, Ending.EXPIRED, total)
    except TaskFailed:
        return Receipt(order.id, Ending.DECLINED, total)
    await run.sleep("packing", seconds=0.4)
    parcel = await run.start_child(
        ship, order, reference_id=f"{order.id}-parcel", on_parent_end="cancel"
    )
    _invoice, tracking = await run.gather(render_invoice(order, charge), parcel.result())
    return Receipt(order.id, Ending.DELIVERED, total, tracking)
