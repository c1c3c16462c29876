"""The process that is killed: it runs the orders, and plays the customers who pay and cancel.

Everything here may be done again after a crash: runs are started by reference id, payments are sent
by reference id, and cancelling what is cancelled does nothing. So the second process runs the very
same code as the first and needs not to know how far that came.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import trio
from attrs import frozen

import aiki_trio
from aiki_sdk import Client, RunCancelled, RunEnded, RunHandle, RunStatus

from .effects import recording
from .plan import Fate, Planned, make_plan
from .progress import show_progress
from .workflows import Receipt, payment_received, process_order, ship

DEADLINE_S: Final = 60.0
"""Seconds in which all orders must have ended, or the demo has failed."""

Turn: TypeAlias = Callable[[Planned], Awaitable[None]]
"""Returns when it is a customer's turn to pay."""


async def at_will(planned: Planned) -> None:
    """Let each customer pay when the plan says."""
    await trio.sleep(planned.acts_after_s)


@frozen
class Service:
    """What one process of the demo is told to do.

    Attributes:
        kill_at: lines of the effect log after which the process kills itself; None: never.

    """

    database: Path
    effects: Path
    orders: int
    seed: int
    quiet: bool
    kill_at: int | None = None

    def command(self) -> list[str]:
        """Return the command line that starts it."""
        command = [sys.executable, "-m", "examples.orders.service"]
        command += ["--database", str(self.database), "--effects", str(self.effects)]
        command += ["--orders", str(self.orders), "--seed", str(self.seed)]
        if self.quiet:
            command.append("--quiet")
        if self.kill_at is not None:
            command += ["--kill-at", str(self.kill_at)]
        return command

    async def run(self) -> None:
        """Serve until every order has ended."""
        plan = make_plan(self.orders, self.seed)
        executions = sum(planned.executions for planned in plan)
        with recording(self.effects, kill_at=self.kill_at) as log, trio.fail_after(DEADLINE_S):
            url = f"sqlite:///{self.database}"
            async with (
                aiki_trio.open_runtime(url, workflows=[process_order, ship]) as runtime,
                trio.open_nursery() as nursery,
            ):
                if not self.quiet:
                    nursery.start_soon(show_progress, runtime.client, log, executions)
                await take_orders(runtime.client, plan)
                nursery.cancel_scope.cancel()


async def take_orders(client: Client, plan: Sequence[Planned], turn: Turn = at_will) -> None:
    """Start all orders at once, let the customers act, and wait for every end.

    Done again after a crash or an outage, it goes on where it was.
    """
    handles = await client.start_many(
        client.options(reference_id=planned.order.id).spec(process_order, planned.order)
        for planned in plan
    )
    async with trio.open_nursery() as nursery:
        for planned, handle in zip(plan, handles, strict=True):
            nursery.start_soon(be_customer, planned, handle, turn)


async def be_customer(planned: Planned, handle: RunHandle[Receipt], turn: Turn) -> None:
    """Do what the plan says, unless it was done before the crash, and wait for the order's end."""
    with suppress(RunEnded):
        match planned.fate:
            case Fate.REVOKED:
                await trio.sleep(planned.acts_after_s)
                await handle.cancel("ordered by mistake")
            case Fate.CANCELLED:
                await handle.wait(RunStatus.AWAITING_EVENT)
                await handle.cancel("found it cheaper")
            case Fate.EXPIRED:
                pass
            case Fate.DELIVERED | Fate.DECLINED | Fate.RECALLED:
                await turn(planned)
                await handle.send(payment_received, planned.payment, reference_id="payment-1")
        if planned.fate is Fate.RECALLED:
            await handle.wait(RunStatus.AWAITING_CHILD)
            await handle.cancel("moved house")
    with suppress(RunCancelled):
        await handle.result()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process of its own; the demo's own process starts it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--effects", type=Path, required=True)
    parser.add_argument("--orders", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--kill-at", type=int)
    given = parser.parse_args(arguments)
    trio.run(Service(**vars(given)).run)


if __name__ == "__main__":
    main()
