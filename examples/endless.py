"""An endless loop: a meter that is read every hour, for years, with a journal that stays small.

A journal grows with every step, and a replay reads all of it. So the loop ends its run after each
day and goes on as a new one with `continue_as_new`, which takes along what the next day needs, the
reference id and unread events; handles follow by themselves. A month passes in an instant here, in
the test kit. Run it with `python -m examples.endless`.
"""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve, frozen

from aiki_sdk import Event, Run, task, workflow
from aiki_trio.testing import Aiki, run as run_in_virtual_time

stop = Event("stop")


@frozen
class Totals:
    days: int = 0
    watt_hours: int = 0


@task
async def read_meter(day: int, hour: int) -> int:
    return 100 + (day * 7 + hour * 13) % 50


@workflow("meter", "1.0.0", events=[stop])
async def meter(run: Run, totals: Totals) -> Totals:
    await run.publish("totals", totals)
    for hour in range(24):
        used = await read_meter(totals.days, hour)
        totals = evolve(totals, watt_hours=totals.watt_hours + used)
        winner, _ = await run.race(stop=run.wait(stop), tick=run.sleep("hour", hours=1))
        if winner == "stop":
            return totals
    return await run.continue_as_new(evolve(totals, days=totals.days + 1))


async def main() -> None:
    async with Aiki() as aiki:
        handle = await aiki.start(meter, Totals(), reference_id="meter-1")
        for days in (1, 20, 10):
            await aiki.sleep(timedelta(days=days))
            totals = await handle.value("totals", Totals)
            print(f"{aiki.now():%Y-%m-%d}: {totals}")
        current = await aiki.client.get(workflow=meter, reference_id="meter-1")
        print(f"journal of the present run: {len(await current.history())} entries")
        await handle.send(stop)
        print(f"stopped: {await handle.result()}")
        print(f"runs until then: {await aiki.client.count(workflow=meter)}")


if __name__ == "__main__":
    run_in_virtual_time(main)
