"""What is known when all is over: the journals, the tasks' own log, and what the parent saw.

The journals are read at the end, and as they were at each kill: from a copy of the database that
the kill left, or, in a cluster, from the database just before, beside the server that owns it.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from attrs import frozen

import aiki_trio
from aiki_actors.engine import Call, RunState, evolve
from aiki_actors.server._views import journal_entry, run_info
from aiki_actors.storage import RunFilter, SqliteReader, open_sqlite_reader
from aiki_actors.worker import idempotency_key
from aiki_sdk import Client, JournalEntry, RunInfo

from .effects import Line
from .plan import Planned
from .workflows import process_order

if TYPE_CHECKING:
    from aiki_actors.storage.postgres import PostgresReader

OUTCOMES: Final = {"task-succeeded", "task-failed", "attempt-failed"}
ENDS: Final = {"run-completed", "run-failed", "run-cancelled"}
READERS: Final = 16
"""Runs that are read at the same time."""
DATABASE_FILES: Final = ("", "-wal")
"""What SQLite keeps a database in; the rest is made anew."""


@frozen
class History:
    """One run: what is known of it, and its whole journal."""

    info: RunInfo
    entries: tuple[JournalEntry, ...]

    def of_kind(self, *kinds: str) -> list[JournalEntry]:
        """Return the entries of these kinds, in order."""
        return [entry for entry in self.entries if entry.kind in kinds]


Journals = Mapping[str, History]
"""Histories by run id."""


@frozen
class Kill:
    """What the parent process saw of a crash.

    Attributes:
        part: which part of the system it was.
        works: whether that part executes tasks.
        pid: the process that was killed.
        signal: the signal that it died by; 0 if it ended otherwise.
        died_at: when the parent learned of it.
        restarted_at: when the parent started the next process.
        journals: what was durable when it died, entries after `died_at` left out.

    """

    part: str
    works: bool
    pid: int
    signal: int
    died_at: datetime
    restarted_at: datetime
    journals: Journals


@frozen
class Evidence:
    """All that the proofs are made from.

    Attributes:
        exit_codes: what the processes ended with that were stopped in good order, by part.
        kills: the crashes, in order.

    """

    plan: Sequence[Planned]
    journals: Journals
    lines: tuple[Line, ...]
    exit_codes: Mapping[str, int]
    kills: tuple[Kill, ...]

    @property
    def killed_workers(self) -> frozenset[int]:
        """The processes that executed tasks when they were killed."""
        return frozenset(kill.pid for kill in self.kills if kill.works)

    def order(self, planned: Planned) -> History | None:
        """Return the run of an order; None if there is none."""
        for history in self.journals.values():
            info = history.info
            if info.workflow == process_order.name and info.reference_id == planned.order.id:
                return history
        return None


@frozen
class TaskOutcome:
    """What a journal says became of one attempt of one task call.

    Attributes:
        key: the call's idempotency key, by which the tasks' own log knows it.
        final: whether the call is done with it: no other attempt follows.
        at: microseconds since the Unix epoch.

    """

    run: str
    task: str
    key: str
    attempt: int
    succeeded: bool
    final: bool
    at: int


def task_outcomes(journals: Journals) -> Iterator[TaskOutcome]:
    """Read what the journals say of task calls."""
    for run_id, history in journals.items():
        for entry in history.of_kind(*sorted(OUTCOMES)):
            call, attempt = entry.body["call"], entry.body["attempt"]
            assert isinstance(call, dict), "a call is written as an object"
            assert isinstance(attempt, int), "attempts are counted"
            address, index = str(call["address"]), call.get("index", 0)
            assert isinstance(index, int), "equal calls are counted"
            yield TaskOutcome(
                run=run_id,
                task=address.split(":")[1],
                key=idempotency_key(run_id, Call(address, str(call.get("branch", "")), index)),
                attempt=attempt,
                succeeded=entry.kind == "task-succeeded",
                final=entry.kind != "attempt-failed",
                at=round(entry.at.timestamp() * 1_000_000),
            )


async def read_journals(database: Path, *, until: datetime | None = None) -> dict[str, History]:
    """Read every run of a database; nothing is executed.

    Args:
        database: the file.
        until: leave out what was written after it.

    """
    async with aiki_trio.open_runtime(f"sqlite:///{database}") as runtime:
        return await journals_of(runtime.client, until=until)


async def journals_of(client: Client, *, until: datetime | None = None) -> dict[str, History]:
    """Read every run that a client sees; of each, what was written until then."""
    journals: dict[str, History] = {}
    limiter = trio.CapacityLimiter(READERS)

    async def read(run_id: str) -> None:
        async with limiter:
            handle = await client.get(run_id)
            entries = await handle.history()
            journals[run_id] = History(
                await handle.info(follow=False),
                tuple(entry for entry in entries if until is None or entry.at <= until),
            )

    async with trio.open_nursery() as nursery:
        async for summary in client.list(limit=500):
            nursery.start_soon(read, summary.id)
    return {run_id: journals[run_id] for run_id in sorted(journals)}


async def journals_beside(database: str) -> dict[str, History]:
    """Read every run of a database beside the server that owns it, which has no part in this.

    Args:
        database: its URL.

    """
    journals: dict[str, History] = {}
    async with _open_reader(database) as reader:
        cursor: str | None = None
        while True:
            page = await reader.runs(RunFilter("default"), limit=500, cursor=cursor)
            for row in page.runs:
                entries = await reader.journal(row.run_id)
                state = RunState(row.run_id)
                for entry in entries:
                    state = evolve(state, entry)
                told = tuple(journal_entry(entry) for entry in entries)
                journals[row.run_id] = History(run_info(state), told)
            if (cursor := page.cursor) is None:
                return {run_id: journals[run_id] for run_id in sorted(journals)}


@asynccontextmanager
async def _open_reader(database: str) -> AsyncGenerator[SqliteReader | PostgresReader]:
    if database.startswith("sqlite:///"):
        async with open_sqlite_reader(Path(database.removeprefix("sqlite:///"))) as reader:
            yield reader
    else:
        # An extra, which the demo in one process does without.
        from aiki_actors.storage.postgres import open_postgres_reader

        async with open_postgres_reader(database) as reader:
            yield reader


def copy_database(database: Path, copy: Path) -> None:
    """Copy the files of a database that no process has open."""
    for suffix in DATABASE_FILES:
        source = Path(f"{database}{suffix}")
        if source.exists():
            shutil.copyfile(source, f"{copy}{suffix}")
