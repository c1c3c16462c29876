"""A 14-day trial: long waits, an event that ends them early, and time that skips itself.

A run that waits holds no thread and no memory worth the name, so two weeks are written as two
weeks. Here they pass in an instant, for the workflow runs in the test kit, whose clock jumps; in
production the same workflow runs under `open_runtime`. Run it with `python -m examples.trial`.
"""

from __future__ import annotations

from datetime import timedelta

from aiki_sdk import Event, Retry, Run, WaitTimeout, task, workflow
from aiki_trio.testing import Aiki, run as run_in_virtual_time

TRIAL = timedelta(days=14)
REMIND_BEFORE = timedelta(days=3)

upgraded = Event("upgraded", str)  # carries the name of the plan


@task(retry=Retry.exponential(max_attempts=5, base_delay=1))
async def send_mail(user: str, text: str, day: int) -> None:
    print(f"  day {day:2}, to {user}: {text}")


@task
async def downgrade(user: str) -> None:
    print(f"  {user} is on the free plan now")


@workflow("trial", "1.0.0", events=[upgraded])
async def trial(run: Run, user: str) -> str:
    def day() -> int:
        return (run.now() - run.started_at).days  # `run.now()` is the same on every replay

    await send_mail(user, "welcome, your trial has begun", day())
    try:
        plan = await run.wait(upgraded, timeout=TRIAL - REMIND_BEFORE)
    except WaitTimeout:
        await send_mail(user, f"{REMIND_BEFORE.days} days left", day())
        try:
            plan = await run.wait(upgraded, timeout=REMIND_BEFORE)
        except WaitTimeout:
            await downgrade(user)
            await send_mail(user, "your trial is over", day())
            return "downgraded"
    await send_mail(user, f"thank you for choosing {plan}", day())
    return f"upgraded to {plan}"


async def main() -> None:
    async with Aiki() as aiki:
        print("ada upgrades on day 5:")
        ada = await aiki.start(trial, "ada", reference_id="trial-ada")
        await aiki.sleep(timedelta(days=5))
        await ada.send(upgraded, "pro", reference_id="payment-1")
        print(f"  result: {await ada.result()}")

        print("ben never answers, and the server crashes on day 12:")
        ben = await aiki.start(trial, "ben", reference_id="trial-ben")
        await aiki.sleep(timedelta(days=12))
        await aiki.restart()
        print(f"  result: {await ben.result()}")


if __name__ == "__main__":
    run_in_virtual_time(main)
