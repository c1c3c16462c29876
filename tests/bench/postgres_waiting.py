"""W4 on PostgreSQL: what waking, listing and sweeping cost beside 10^3 to 10^6 waiting runs.

`python -m tests.bench.postgres_waiting [--rows 1000,10000,100000,1000000]` prints a table for the
documentation. One run is started and parked; SQL multiplies its row and its journal, so every row
is a run that can be woken, and a million of them take a minute. For each number of rows a runtime
opens the database, wakes some runs that it has never seen, and awaits their results.

Times are noisy; what counts is the pages of tables and indexes that PostgreSQL touched, read from
its own statistics: the difference between a life that wakes runs and one that does not.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import asyncpg
import trio
from attrs import frozen

from aiki_actors.engine import Micros
from aiki_actors.storage import RunFilter
from aiki_actors.storage.postgres import PostgresReader, migrate_postgres, open_postgres_reader
from aiki_sdk.protocol import RunStatus
from aiki_trio import open_runtime
from tests.bench._measuring import check
from tests.bench._workflows import sleeper
from tests.servers.postgres import PostgresServer, postgres_server

ROWS: Final = (1_000, 10_000, 100_000, 1_000_000)
WOKEN: Final = 50
PAGE: Final = 50
SWEEP: Final = 500
ALONE: Final = ("-c", "autovacuum=off")
REPEATS: Final = 21
LOOK_S: Final = 0.05
"""Between two looks at what a server only says when asked."""

# A run id is `run_` and 26 characters; the copies are told apart by their number at its end.
_COPY_ID: Final = "left($1, 18) || lpad(n::text, 12, '0')"
_COPIES: Final = "generate_series($2::bigint, $3::bigint) AS n"
MULTIPLY: Final = (
    f"""
    INSERT INTO runs (
        run_id, namespace, workflow, version, status, pool, priority, input_hash, attempt,
        created_at, started_at, due_at, epoch
    )
    SELECT {_COPY_ID}, namespace, workflow, version, status, pool, priority, input_hash, attempt,
        created_at + n, started_at + n, due_at + n, epoch
    FROM runs, {_COPIES} WHERE run_id = $1
    """,
    f"""
    INSERT INTO journal (run_id, seq, at, kind, format, body)
    SELECT {_COPY_ID}, seq, at + n, kind, format, body FROM journal, {_COPIES} WHERE run_id = $1
    """,
)
TOUCHED: Final = """
SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
FROM pg_statio_user_tables WHERE schemaname = 'aiki' AND relname IN ('runs', 'journal', 'notices')
"""
OURS: Final = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'aiki-trio%'"


@frozen
class Figures:
    """What was measured beside so many waiting runs; times in milliseconds, pages counted."""

    rows: int
    open_ms: float
    wake_ms: float
    wake_pages: float
    list_ms: float
    status_ms: float
    due_ms: float
    sweep_ms: float

    def line(self) -> str:
        """Write a line of the table."""
        times = (self.list_ms, self.status_ms, self.due_ms, self.sweep_ms)
        shown = " | ".join(f"{value:.1f}" for value in times)
        woken = f"{self.wake_ms:.0f} | {self.wake_pages:.0f}"
        return f"| {self.rows:,} | {self.open_ms:.0f} | {woken} | {shown} |"


HEAD: Final = (
    "| waiting runs | open, ms | wake, ms | wake, pages | a page of all, ms | of a status, ms"
    " | due soon, ms | keeper's sweep, ms |\n|---|---|---|---|---|---|---|---|"
)


async def _park_one(url: str) -> str:
    """Start one run and wait until it is parked; returns its id."""
    async with open_runtime(url, workflows=[sleeper]) as runtime:
        handle = await runtime.client.start(sleeper, 7)
        # Outside the runtime nothing announces that a run is parked: look until it is.
        while await handle.status() is not RunStatus.SLEEPING:  # noqa: ASYNC110  # as said
            await trio.sleep(LOOK_S)
        return handle.id


async def _multiply(url: str, run_id: str, first: int, last: int) -> None:
    """Make copies of a parked run, from number `first` to `last`; in asyncio."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "aiki"})
    for statement in MULTIPLY:
        await connection.execute(statement, run_id, first, last)
    # As autovacuum and a checkpoint do soon after tables have grown.
    await connection.execute("VACUUM ANALYZE runs, journal")
    await connection.execute("CHECKPOINT")
    await connection.close()


def _copy_of(run_id: str, number: int) -> str:
    return f"{run_id[:18]}{number:012}"


async def _life(url: str, chosen: Sequence[str]) -> tuple[float, list[float]]:
    """Open a runtime and wake these runs; returns how long each took, in milliseconds."""
    began = time.perf_counter()
    took: list[float] = []
    async with open_runtime(url, workflows=[sleeper]) as runtime:
        opened_ms = (time.perf_counter() - began) * 1000
        for run_id in chosen:
            began = time.perf_counter()
            handle = await runtime.client.get(run_id, workflow=sleeper)
            await handle.wake("long")
            check(actual=await handle.result(), expected=7, what=f"result of {run_id}")
            took.append((time.perf_counter() - began) * 1000)
    return opened_ms, took


async def _median_ms(ask: Callable[[], Awaitable[Sequence[Any]]], expected: int) -> float:
    """Ask often; returns the median. The first time, which fills caches, does not count."""
    took: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        check(actual=len(await ask()), expected=expected, what="rows of an answer")
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took[1:])


async def _look(url: str, due: Micros) -> tuple[float, float, float, float]:
    """Ask what a list and the keeper ask; `due` is when the first 500 are."""
    async with open_postgres_reader(url) as reader:
        waiting = RunFilter("default", status=(RunStatus.SLEEPING,))
        return (
            await _median_ms(partial(_page, reader, RunFilter("default")), PAGE),
            await _median_ms(partial(_page, reader, waiting), PAGE),
            await _median_ms(partial(reader.due, before=due, limit=SWEEP), SWEEP),
            await _median_ms(partial(_sweep, reader), 0),
        )


async def _page(reader: PostgresReader, where: RunFilter) -> Sequence[Any]:
    return (await reader.runs(where, limit=PAGE)).runs


async def _sweep(reader: PostgresReader) -> Sequence[Any]:
    """Ask what the keeper asks in a sweep: claims, notices and ready runs, of which are none."""
    claimed = await reader.claimed(limit=SWEEP)
    return [*claimed, *await reader.notices(limit=SWEEP), *await reader.ready(limit=SWEEP)]


def _touched(server: PostgresServer) -> int:
    """Return how many pages were touched so far, once nobody of ours is connected any more."""
    # A connection adds what it did to the statistics when it ends.
    while server.execute(OURS):
        time.sleep(LOOK_S)
    return int(server.execute(TOUCHED))


def measure(server: PostgresServer, sizes: Sequence[int]) -> Iterator[Figures]:
    """Measure beside each of these numbers of waiting runs, which must rise."""
    trio.run(migrate_postgres, server.url())
    run_id = trio.run(_park_one, server.url())
    filled = 0
    for size in sizes:
        asyncio.run(_multiply(server.url(), run_id, filled + 1, size))
        filled = size
        yield _measure(server, run_id, size)


def _measure(server: PostgresServer, run_id: str, rows: int) -> Figures:
    url = server.url()
    before = _touched(server)
    trio.run(_life, url, ())
    idle = _touched(server) - before
    step = rows // (WOKEN + 1)
    # Spread over all, and never those that an earlier size has woken.
    chosen = [_copy_of(run_id, rows - number * step) for number in range(WOKEN)]
    opened_ms, took = trio.run(_life, url, chosen)
    pages = _touched(server) - before - 2 * idle
    due = server.execute(f"SELECT due_at FROM aiki.runs ORDER BY due_at OFFSET {SWEEP} LIMIT 1")
    looks = trio.run(_look, url, Micros(due))
    return Figures(rows, opened_ms, statistics.median(took), pages / WOKEN, *looks)


def main(argv: Sequence[str]) -> int:
    """Measure for each number of rows, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.postgres_waiting")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="waiting runs, rising")
    options = parser.parse_args(argv)
    sizes = [int(size) for size in options.rows.split(",")]
    if sizes != sorted(set(sizes)) or sizes[0] < ROWS[0]:
        parser.error(f"--rows is {options.rows}; give rising numbers, from {ROWS[0]} on")
    # Background work would be counted as ours.
    with postgres_server(None, *ALONE) as server:
        print(HEAD, flush=True)
        for figures in measure(server, sizes):
            print(figures.line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
