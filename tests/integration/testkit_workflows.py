"""Workflows that the tests of the test kit run."""

from __future__ import annotations

from datetime import timedelta

import trio
from attrs import Factory, define

from aiki_sdk import Event, Retry, Run, TaskFailed, WaitTimeout, current_task, task, workflow

paid = Event("paid", str)


@define(eq=False)
class Diary:
    """What tasks really did; a test that looks at it clears it first."""

    charged: list[str] = Factory(lambda: list[str]())


diary = Diary()


@task(retry=Retry.exponential(max_attempts=4, base_delay=10))
async def charge(amount: int) -> str:
    diary.charged.append(current_task().idempotency_key)
    await trio.sleep(1)
    return f"charge-{amount}"


@task
def render(charge_id: str) -> str:
    """A plain function: runs in a thread."""
    return f"invoice of {charge_id}"


@task
async def remind(user: str) -> str:
    return f"reminded {user}"


@workflow(name="billing", version="1.0.0")
async def billing(run: Run, amount: int) -> str:
    return await charge(amount)


@workflow(name="order", version="1.0.0", events=[paid])
async def order(run: Run, amount: int) -> str:
    charge_id = await charge(amount)
    await run.sleep("cool-off", days=90)
    invoice = await render(charge_id)
    txn = await run.wait(paid)
    second = await run.call(billing, amount + 1)
    return f"{invoice}, {txn}, {second}"


@workflow(name="trial", version="1.0.0", events=[paid])
async def trial(run: Run, user: str) -> str:
    try:
        await run.wait(paid, timeout=timedelta(days=14))
    except WaitTimeout:
        await remind(user)
        return "downgraded"
    return "paid"


@workflow(name="fan-out", version="1.0.0")
async def fan_out(run: Run, count: int) -> tuple[str, ...]:
    return await run.gather(*[charge(n) for n in range(count)])


@workflow(name="failing", version="1.0.0")
async def failing(run: Run) -> str:
    try:
        return await charge.options(retry=Retry.never())(1)
    except TaskFailed as failed:
        message = f"no charge: {failed.error.message}"
        raise ValueError(message) from failed
