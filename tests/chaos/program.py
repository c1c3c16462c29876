"""The processes that are killed: an embedded runtime with its load, and one that sees it end.

`serve` works until it is killed, told to end (SIGTERM), or has played its cases. `finish` runs
without faults: it asks for what was not acknowledged, waits until nothing moves any more, leaves
the runtime, and looks at what is in the database. Both find everything in one folder.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio
from attrs import asdict, evolve, frozen

from aiki_actors.engine import ClaimLost, EngineLimits
from aiki_actors.faults import arm_faults, fault_passings
from aiki_actors.server import KeeperSettings
from aiki_actors.storage import RunFilter, SqliteSettings, Storage, open_sqlite
from aiki_actors.worker import WorkerSettings
from aiki_sdk.protocol import RunStatus
from aiki_trio import Runtime, RuntimeSettings, open_runtime

from .checkers import World, ended_as, read_world, violations
from .client import LoadClient, Memory
from .records import Record, RecordLog, read
from .workload import KINDS, WORKFLOWS, sinks

LIVE: Final = tuple(status for status in RunStatus if not status.terminal)

SETTINGS: Final = RuntimeSettings(
    # A run may well lose more than five workers in a row here, and is not to stall for it.
    limits=EngineLimits(claims_lost_max=10_000),
    worker=WorkerSettings(runs_max=6, warm_max=3, shutdown_grace_s=2.0),
    keeper=KeeperSettings(sweep_s=0.25, parallel=8),
    sqlite=SqliteSettings(synchronous="normal", busy_timeout_s=0.5),
    blocked_after=None,
)
"""Few slots and few warm runs, so that runs stand in the queue and are replayed; quick sweeps."""


SEE_END_S: Final = 5.0
"""How long endless load waits for each of its cases, before it turns to the next."""


@frozen
class Folder:
    """Where everything of one scenario is."""

    path: Path

    @property
    def database(self) -> Path:
        """The database file."""
        return self.path / "db" / "chaos.db"

    @property
    def acknowledged(self) -> Path:
        """What clients were told."""
        return self.path / "acknowledged.jsonl"

    @property
    def effects(self) -> Path:
        """What tasks did."""
        return self.path / "effects.jsonl"

    @property
    def log(self) -> Path:
        """What the processes logged."""
        return self.path / "log.txt"

    @property
    def report(self) -> Path:
        """What the last process found."""
        return self.path / "report.json"


@frozen
class Life:
    """What one process is to do.

    Attributes:
        plan: faults, as in `AIKI_FAULT`.
        rounds: how often each kind is played; None: until the process is ended from outside.
        kinds: which kinds, by name; empty: all.
        parallel: cases played at the same time.
        linger_s: how long to stay after the last case was played.
        quiet_s: how long `finish` waits for quiet.
        zombies, doubts: see `World`.

    """

    plan: str = ""
    rounds: int | None = None
    kinds: tuple[str, ...] = ()
    parallel: int = 6
    linger_s: float = 0.0
    quiet_s: float = 30.0
    zombies: bool = False
    doubts: bool = False


@frozen
class Report:
    """What was found in the end.

    Attributes:
        violations: promises that were broken, a line each.
        counts: how much there was of what, so that an empty proof is noticed.
        quiet_after_s: from the opening of the runtime until nothing moved any more.

    """

    violations: list[str]
    counts: dict[str, int]
    quiet_after_s: float


@asynccontextmanager
async def _opened(folder: Folder, life: Life) -> AsyncGenerator[tuple[Runtime, LoadClient]]:
    folder.database.parent.mkdir(exist_ok=True)
    memory = Memory.of(read(folder.acknowledged))
    arm_faults(life.plan)
    with RecordLog(folder.acknowledged) as acknowledged, RecordLog(folder.effects) as effects:
        sinks.append(effects)
        url = f"sqlite:///{folder.database}"
        async with open_runtime(url, workflows=WORKFLOWS, settings=SETTINGS) as runtime:
            yield runtime, LoadClient(runtime.client, memory, acknowledged)


async def serve(folder: Folder, life: Life) -> None:
    """Work until killed, told to end, or done."""
    async with _opened(folder, life) as (_runtime, client), trio.open_nursery() as nursery:
        nursery.start_soon(cancel_at_term, nursery.cancel_scope)
        await play(client, life)
        await trio.sleep(life.linger_s)
        nursery.cancel_scope.cancel()
    (folder.path / "passings.json").write_text(json.dumps(fault_passings()))


async def cancel_at_term(scope: trio.CancelScope) -> None:
    """Cancel when this process is told to end."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def play(client: LoadClient, life: Life) -> None:
    """Play what earlier processes left, then new cases of every kind in turn."""
    kinds = [kind for kind in KINDS.values() if not life.kinds or kind.name in life.kinds]
    left = list(client.memory.unfinished())
    first = max(client.memory.cases.values(), default=0)
    rounds = math.inf if life.rounds is None else life.rounds

    async def take_turns() -> None:
        nonlocal first
        while True:
            if left:
                kind, number = left.pop()
            elif first < rounds * len(kinds):
                kind, number = kinds[first % len(kinds)], first // len(kinds)
                first += 1
            else:
                return
            await client.play(kind, number)
            if life.rounds is None:
                await client.see_end(kind, number, SEE_END_S)

    first *= len(kinds)
    async with trio.open_nursery() as nursery:
        for _ in range(life.parallel):
            nursery.start_soon(take_turns)


async def finish(folder: Folder, life: Life) -> None:
    """Play what is left, wait for quiet, leave, check, and write the report."""
    found: list[str] = []
    began = time.monotonic()
    async with _opened(folder, life) as (runtime, client):
        with trio.move_on_after(life.quiet_s) as scope:
            await play(client, evolve(life, rounds=0))
            await _quiet(runtime.storage)
        quiet_after_s = time.monotonic() - began
        if scope.cancelled_caught:
            found += await _still_moving(runtime.storage, life.quiet_s)
    async with open_sqlite(folder.database, SETTINGS.sqlite) as storage:
        world = await read_world(
            storage,
            [record for record in read(folder.acknowledged) if record["what"] != "begin"],
            read(folder.effects),
            zombies=life.zombies,
            doubts=life.doubts,
        )
    found += violations(world, judge)
    report = Report(found, counts(world), quiet_after_s)
    folder.report.write_text(json.dumps(asdict(report), indent=1))


def judge(world: World, record: Record) -> str | None:
    """Say what is wrong with how an acknowledged start of our kinds ended."""
    kind, number = KINDS[str(record["kind"])], record["n"]
    assert isinstance(number, int), record
    return ended_as(world, str(record["run"]), kind.status, kind.output(number))


def counts(world: World) -> dict[str, int]:
    """Count what the checks were made on."""
    told = [str(record["what"]) for record in world.acknowledged]
    entries = [entry for run in world.runs.values() for entry in run.entries]
    begun = [record for record in world.effects if record["phase"] == "begin"]
    return {
        "runs": len(world.runs),
        "entries": len(entries),
        "claims lost": sum(isinstance(entry.body, ClaimLost) for entry in entries),
        "starts": told.count("start"),
        "sends": told.count("send"),
        "cancels": told.count("cancel"),
        "executions": len(begun),
        "repeated": len(begun) - len({(str(r["key"]), r["attempt"]) for r in begun}),
        "processes": len({r["pid"] for r in begun}),
    }


async def _quiet(storage: Storage) -> None:
    """Wait until only those runs live that stay for ever, and nothing is owed or claimed."""
    # Nobody tells when the last thing has happened, so it is looked for.
    while await _moving(storage):  # noqa: ASYNC110
        await trio.sleep(0.02)


async def _moving(storage: Storage) -> list[str]:
    """Return what is still going on, a line each, at most one page."""
    moving: list[str] = []
    cursor: str | None = None
    while True:
        page = await storage.runs(RunFilter("default", status=LIVE), limit=500, cursor=cursor)
        for row in page.runs:
            kind = KINDS.get(row.workflow)
            stays = kind is not None and kind.stays and row.reference_id is not None
            if not (stays and kind is not None and row.status is kind.status):
                moving.append(f"{row.run_id} ({row.workflow} {row.reference_id}) is {row.status}")
        cursor = page.cursor
        if moving or cursor is None:
            break
    moving += [f"notice {notice.id} is owed" for notice in await storage.notices(limit=100)]
    moving += [f"run {run.run_id} is claimed" for run in await storage.claimed(limit=100)]
    return moving


async def _still_moving(storage: Storage, seconds: float) -> Sequence[str]:
    return [f"P1 after {seconds:g} s: {line}" for line in await _moving(storage)]


def live(role: str, folder: Folder, life: Life) -> int:
    """Be such a process, from here to its end; returns the exit code."""
    logging.basicConfig(
        filename=folder.log,
        level=logging.INFO,
        format=f"%(asctime)s {os.getpid()} {role} %(levelname)s %(name)s %(message)s",
        force=True,
    )
    work = {"serve": serve, "finish": finish}[role]
    try:
        trio.run(partial(work, folder, life))
    except BaseException:  # it is noted wherever it comes from, and the process ends
        logging.getLogger("tests.chaos").exception("the process broke down")
        return 1
    return 0


if __name__ == "__main__":
    role, path, given = sys.argv[1:]
    options = json.loads(given)
    options["kinds"] = tuple(options.get("kinds", ()))
    sys.exit(live(role, Folder(Path(path)), Life(**options)))
