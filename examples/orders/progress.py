"""The live progress of the orders: a table on a terminal that can show one, else a line at times.

It only reads, through the client, what the runs' statuses are.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio
from attrs import frozen

from aiki_sdk import Client, RunStatus

from .effects import EffectLog
from .workflows import process_order, ship

TABLE_EVERY_S: Final = 0.15
LINE_EVERY_S: Final = 1.0
BAR: Final = 40


@frozen
class Snapshot:
    """How far the orders are.

    Attributes:
        executions: of task code in this process.
        planned: executions that are planned in all, both processes together.

    """

    orders: Counter[RunStatus]
    shipments: Counter[RunStatus]
    seconds: float
    executions: int
    planned: int

    @property
    def line(self) -> str:
        """All of it in one line."""
        counts = ", ".join(f"{self.orders[s]} {s}" for s in RunStatus if self.orders[s])
        return f"{self.seconds:5.1f} s  {self.executions:4d} executions  {counts}"


async def take_snapshot(client: Client, log: EffectLog, since: float, planned: int) -> Snapshot:
    """Look at every run."""
    orders: Counter[RunStatus] = Counter()
    shipments: Counter[RunStatus] = Counter()
    async for run in client.list(limit=500):
        (orders if run.workflow == process_order.name else shipments)[run.status] += 1
    return Snapshot(orders, shipments, trio.current_time() - since, log.executions, planned)


async def show_progress(client: Client, log: EffectLog, planned: int) -> None:
    """Show how far the orders are until cancelled."""
    since = trio.current_time()
    terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if terminal and await _show_table(client, log, since, planned):
        return
    while True:
        snapshot = await take_snapshot(client, log, since, planned)
        print(snapshot.line, flush=True)
        await trio.sleep(LINE_EVERY_S)


async def _show_table(client: Client, log: EffectLog, since: float, planned: int) -> bool:
    """Keep a table up to date until cancelled; False at once if `rich` is not installed."""
    try:
        from rich.live import Live
        from rich.table import Table
    except ImportError:
        return False

    def table_of(snapshot: Snapshot) -> Table:
        table = Table(
            title=f"process {os.getpid()}, {snapshot.seconds:.1f} s",
            caption=f"{snapshot.executions} task executions in this process",
        )
        table.add_column("status")
        table.add_column(process_order.name, justify="right")
        table.add_column(ship.name, justify="right")
        table.add_column("", min_width=BAR)
        total = max(1, snapshot.orders.total())
        for status in RunStatus:
            bar = "█" * round(BAR * snapshot.orders[status] / total)
            colour = _colour(status)
            table.add_row(
                f"[{colour}]{status}",
                _number(snapshot.orders[status]),
                _number(snapshot.shipments[status]),
                f"[{colour}]{bar}",
            )
        return table

    with Live(auto_refresh=False, transient=False) as live:
        await _keep_updating(
            lambda snapshot: live.update(table_of(snapshot), refresh=True),
            client,
            log,
            since,
            planned,
        )
    return True


async def _keep_updating(
    draw: Callable[[Snapshot], None], client: Client, log: EffectLog, since: float, planned: int
) -> None:
    try:
        while True:
            draw(await take_snapshot(client, log, since, planned))
            await trio.sleep(TABLE_EVERY_S)
    finally:
        with trio.CancelScope(shield=True):  # the last picture is the true end
            draw(await take_snapshot(client, log, since, planned))


def _number(count: int) -> str:
    return str(count) if count else ""


def _colour(status: RunStatus) -> str:
    if not status.terminal:
        return "cyan" if status is RunStatus.RUNNING else "yellow"
    return {RunStatus.COMPLETED: "green", RunStatus.CANCELLED: "magenta"}.get(status, "red")
