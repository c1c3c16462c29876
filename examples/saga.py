"""A saga: what a workflow did is undone, the last thing first, when it cannot go on.

A compensation is registered *before* the step that it undoes: a step whose answer got lost has
perhaps happened, so undoing must do no harm if there is nothing to undo. The compensations are
durable calls too, with the retries of their tasks. Run it with `python -m examples.saga`.
"""

from __future__ import annotations

import trio

import aiki_trio
from aiki_sdk import NonRetryable, Retry, Run, RunFailed, task, workflow

PERSISTENT = Retry.exponential(max_attempts=10, base_delay=0.01)


@task(retry=PERSISTENT)
async def book_flight(trip: str) -> str:
    print(f"  flight booked for {trip}")
    return "flight-7"


@task(retry=PERSISTENT)
async def cancel_flight(trip: str) -> None:
    print(f"  flight cancelled for {trip}")


@task(retry=PERSISTENT)
async def book_hotel(trip: str) -> str:
    print(f"  hotel booked for {trip}")
    return "hotel-3"


@task(retry=PERSISTENT)
async def cancel_hotel(trip: str) -> None:
    print(f"  hotel cancelled for {trip}")


@task(retry=PERSISTENT)
async def pay(trip: str, limit: int) -> str:
    if limit < 900:
        raise NonRetryable(f"the card's limit is {limit}, the trip costs 900")
    print(f"  {trip} paid")
    return "receipt-1"


@workflow("book-trip", "1.0.0")
async def book_trip(run: Run, trip: str, limit: int) -> list[str]:
    run.compensate(cancel_flight, trip)
    flight = await book_flight(trip)
    run.compensate(cancel_hotel, trip)
    hotel = await book_hotel(trip)
    return [flight, hotel, await pay(trip, limit)]  # if this fails, both bookings are undone


async def main() -> None:
    async with aiki_trio.open_runtime("memory://", workflows=[book_trip]) as runtime:
        for trip, limit in (("Oslo", 1_000), ("Rome", 500)):
            print(f"{trip}, with a limit of {limit}:")
            handle = await runtime.client.start(book_trip, trip, limit)
            try:
                print(f"  result: {', '.join(await handle.result())}")
            except RunFailed:
                error = (await handle.info()).error
                print(f"  failed: {error.message if error else 'for no reason'}")


if __name__ == "__main__":
    trio.run(main)
