"""The processes around a cluster: load over HTTP, the wait for quiet, and the check afterwards.

Run as `python -m tests.chaos.remote ROLE FOLDER JSON`; the JSON names the server or the database.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from attrs import asdict, frozen

from aiki_sdk import AikiError, Client
from aiki_trio._storage_url import open_storage

from .checkers import read_world, violations
from .client import LoadClient, Memory
from .program import LIVE, Folder, Life, Report, cancel_at_term, counts, judge, play
from .records import RecordLog, read
from .workload import KINDS, WORKFLOWS

PLAYED: Final = tuple(name for name in KINDS if name != "busy")
"""A server's limit of lost claims is its own, and long tasks would come to it."""


@frozen
class Around:
    """What such a process is told.

    Attributes:
        url: the server's, or the database's.
        in_flight: how many cases are played at the same time.
        quiet_s: how long to wait for quiet.
        quiet_after_s: how long that took, for the report.
        late: what was still moving then.

    """

    url: str
    in_flight: int = 6
    quiet_s: float = 60.0
    quiet_after_s: float = 0.0
    late: tuple[str, ...] = ()


async def load(folder: Folder, around: Around) -> None:
    """Play cases over HTTP until told to end."""
    memory = Memory.of(read(folder.acknowledged))
    with RecordLog(folder.acknowledged) as acknowledged:
        async with (
            Client(around.url, workflows=WORKFLOWS) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(cancel_at_term, nursery.cancel_scope)
            life = Life(kinds=PLAYED, parallel=around.in_flight)
            await play(LoadClient(client, memory, acknowledged), life)


async def settle(folder: Folder, around: Around) -> None:
    """Ask for what was not acknowledged, then wait until only what stays for ever is alive."""
    memory = Memory.of(read(folder.acknowledged))
    began = time.monotonic()
    late: list[str] = []
    with RecordLog(folder.acknowledged) as acknowledged:
        async with Client(around.url, workflows=WORKFLOWS) as client:
            with trio.move_on_after(around.quiet_s) as scope:
                await play(LoadClient(client, memory, acknowledged), Life(rounds=0))
                # Nobody tells when the last thing has happened, so it is looked for.
                while late := await _moving(client):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            if scope.cancelled_caught:
                late = [f"P1 after {around.quiet_s:g} s: {line}" for line in late]
    told = {"quiet_after_s": time.monotonic() - began, "late": late}
    (folder.path / "settled.json").write_text(json.dumps(told))


async def _moving(client: Client) -> list[str]:
    """Return the runs that are alive and must not be, a line each."""
    moving: list[str] = []
    try:
        async for run in client.list(status=list(LIVE)):
            kind = KINDS.get(run.workflow)
            stays = kind is not None and kind.stays and run.reference_id is not None
            if not stays:
                moving.append(f"{run.id} ({run.workflow}) is {run.status}")
    except AikiError as error:
        if not error.retryable:
            raise
        moving.append(f"the server cannot be asked: {error}")
    return moving


async def check(folder: Folder, around: Around) -> None:
    """Read the database, which nobody uses any more, and write the report."""
    async with open_storage(around.url) as storage:
        world = await read_world(
            storage,
            [record for record in read(folder.acknowledged) if record["what"] != "begin"],
            read(folder.effects),
            zombies=True,
            doubts=True,
        )
    found = [*around.late, *violations(world, judge)]
    report = Report(found, counts(world), around.quiet_after_s)
    folder.report.write_text(json.dumps(asdict(report), indent=1))


def main(role: str, path: str, given: str) -> None:
    """Be such a process."""
    told: dict[str, Any] = json.loads(given)
    told["late"] = tuple(told.get("late", ()))
    around = Around(**told)
    work = {"load": load, "settle": settle, "check": check}[role]
    trio.run(partial(work, Folder(Path(path)), around))


if __name__ == "__main__":
    main(*sys.argv[1:])
