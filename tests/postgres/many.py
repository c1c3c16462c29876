"""A database with very many runs, and how each question to it is answered.

As a program it prints the plans for the documentation: `python -m tests.postgres.many 1000000`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import trio
from attrs import evolve, frozen

from aiki_actors.storage import PostgresSettings, RunFilter
from aiki_actors.storage.postgres import _queries as queries, migrate_postgres
from aiki_actors.storage.postgres._connection import Target
from aiki_sdk.protocol import RunStatus
from tests.contract.storage_cases import NOW
from tests.servers.postgres import postgres_server

WORKFLOWS: Final = 20
NOW_AT: Final = datetime.fromtimestamp(NOW / 1e6, UTC)
DEFAULT: Final = RunFilter("default")

# Of a hundred runs 80 have ended, 10 sleep until some time, 5 are ready, 3 are held, 2 stalled;
# ids are in order of creation; a tenth has a parent, a tenth a reference id, a tenth labels.
FILL: Final = f"""
INSERT INTO runs (
    run_id, namespace, workflow, version, status, pool, priority, reference_id, input_hash,
    parent_id, labels, attempt, created_at, started_at, ended_at, ready_at, due_at, worker_id,
    epoch, reference_current
)
SELECT
    'run_' || lpad(n::text, 26, '0'), 'default', 'workflow-' || n % {WORKFLOWS}, '1',
    CASE
        WHEN kind < 80 THEN 'completed' WHEN kind < 90 THEN 'sleeping' WHEN kind < 95 THEN 'queued'
        WHEN kind < 98 THEN 'running' ELSE 'stalled'
    END,
    'default', n % 3, CASE WHEN n % 10 = 1 THEN 'reference-' || n END, '00',
    CASE WHEN n % 10 = 2 THEN 'run_' || lpad((n / 50 * 50)::text, 26, '0') END,
    CASE WHEN n % 10 = 3 THEN '{{"team": "' || n % 7 || '"}}' END,
    1, {NOW} + n, {NOW} + n,
    CASE WHEN kind < 80 THEN {NOW} + n + 1000 END,
    CASE WHEN kind BETWEEN 90 AND 94 THEN {NOW} + n END,
    CASE WHEN kind BETWEEN 80 AND 89 THEN {NOW} + n * 1000 END,
    CASE WHEN kind BETWEEN 95 AND 97 THEN 'wrk_' || n % 9 END,
    1, CASE WHEN n % 10 = 1 THEN true END
FROM (SELECT n, (n * 7919) % 100 AS kind FROM generate_series(1, $1::bigint) AS n) AS numbered
"""
LABELS: Final = """
INSERT INTO run_labels (namespace, name, value, created_at, run_id)
SELECT namespace, 'team', labels::json ->> 'team', created_at, run_id FROM runs
WHERE labels IS NOT NULL
"""
JOURNAL: Final = """
INSERT INTO journal (run_id, seq, at, kind, format, body)
SELECT run_id, seq, created_at, 'run-queued', 1, '\\x7b7d' FROM runs, generate_series(1, 3) AS seq
"""


@frozen
class Question:
    """A question, the statement that asks it, and the index that should answer it.

    Where each of two does equally well, both are named, with a `|` between.
    """

    name: str
    index: str
    text: str
    values: tuple[object, ...]


def questions() -> Iterator[Question]:
    """Every question that the storage asks, with values that fit `fill`."""
    one = "run_" + "50".rjust(26, "0")
    yield Question("journal of a run", "journal_pkey", queries.JOURNAL, (one, 0, 500))
    yield Question("a run", "runs_pkey", queries.ONE_RUN, (one,))
    yield Question(
        "by reference id, now", "runs_by_current_reference|runs_by_reference", queries.FIND,
        ("default", "workflow-1", "reference-41"),
    )  # fmt: skip
    end = (int(NOW) + 500, one)
    soon = (NOW_AT, NOW_AT + timedelta(milliseconds=10))
    for name, index, where in (
        ("all", "runs_by_creation", DEFAULT),
        ("a time", "runs_by_creation", _bounded(DEFAULT, soon)),
        ("a status", "runs_by_status", evolve(DEFAULT, status=(RunStatus.STALLED,))),
        (
            "three statuses", "runs_by_status",
            evolve(DEFAULT, status=(RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.SLEEPING)),
        ),
        ("a workflow", "runs_by_workflow", evolve(DEFAULT, workflow="workflow-3")),
        (
            "a workflow and a status that none of it has", "runs_by_workflow_status",
            evolve(DEFAULT, workflow="workflow-3", status=(RunStatus.STALLED,)),
        ),
        (
            "a workflow and two statuses", "runs_by_workflow_status",
            evolve(
                DEFAULT, workflow="workflow-3", status=(RunStatus.RUNNING, RunStatus.COMPLETED)
            ),
        ),
        ("a parent", "runs_by_parent", evolve(DEFAULT, parent_id=one)),
        ("a reference id", "runs_by_reference", evolve(DEFAULT, reference_id="reference-41")),
        ("a label", "run_labels_pkey", evolve(DEFAULT, labels=(("team", "3"),))),
    ):  # fmt: skip
        page = queries.listing(where, 51, None)
        assert page is not None
        yield Question(f"list: {name}", index, page.text, page.values)
        if name == "all":
            page = queries.listing(where, 51, end)
            assert page is not None
            yield Question("list: the next page", index, page.text, page.values)
    yield Question("ready", "runs_by_readiness", queries.READY_ALL, (500,))
    exclude = [f"run_{number:026d}" for number in range(500)]
    yield Question("ready, but for 500", "runs_by_readiness", queries.READY, (500, exclude))
    later = int(NOW) + 10_000_000
    yield Question("due", "runs_by_due_time", queries.DUE, (later, 500))
    yield Question(
        "due, further", "runs_by_due_time", queries.DUE_AFTER, (later, 500, int(NOW), one)
    )
    yield Question("claimed", "runs_by_claim", queries.CLAIMED, (one, 500))
    yield Question("notices", "notices_pkey", queries.NOTICES, ("", 500))
    yield Question("workflows", "workflows_pkey", queries.WORKFLOWS, ())


def _bounded(where: RunFilter, times: tuple[datetime, datetime]) -> RunFilter:
    return evolve(where, created_after=times[0], created_before=times[1])


async def connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """Connect with the settings that the storage's readers have."""
    session = Target(url, PostgresSettings()).session("reader")
    return await asyncpg.connect(url, server_settings=session)


async def fill(url: str, runs: int) -> None:
    """Write so many runs, with their journals and labels; in asyncio."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "aiki"})
    await connection.execute(FILL, runs)
    await connection.execute(LABELS)
    await connection.execute(JOURNAL)
    # As autovacuum does soon after a table has grown.
    await connection.execute("VACUUM ANALYZE runs, run_labels, journal")
    await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the nodes of a plan."""
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


async def explain(
    connection: asyncpg.Connection[asyncpg.Record], question: Question, options: str = ""
) -> dict[str, Any]:
    """Return the plan of a question."""
    text = f"EXPLAIN (FORMAT JSON{options}) {question.text}"
    found = json.loads(await connection.fetchval(text, *question.values))
    plan: dict[str, Any] = found[0]
    return plan


async def _print_plans(url: str, runs: int) -> None:
    started = time.perf_counter()
    await fill(url, runs)
    sys.stderr.write(f"filled in {time.perf_counter() - started:.0f} s\n")
    connection = await connect(url)
    sys.stdout.write("| question | index | rows read | ms |\n|---|---|---|---|\n")
    for question in questions():
        await explain(connection, question, ", ANALYZE")
        found = await explain(connection, question, ", ANALYZE")
        indexes = {
            node["Index Name"]: None for node in nodes(found["Plan"]) if "Index Name" in node
        }
        rows = sum(
            int(node["Actual Rows"] * node["Actual Loops"])
            for node in nodes(found["Plan"])
            if "Index Name" in node
        )
        names = ", ".join(f"`{name}`" for name in indexes)
        took = found["Execution Time"]
        sys.stdout.write(f"| {question.name} | {names} | {rows:,} | {took:.2f} |\n")
    size = await connection.fetchval("SELECT pg_size_pretty(pg_database_size(current_database()))")
    sys.stderr.write(f"database: {size}\n")
    await connection.close()


if __name__ == "__main__":
    with postgres_server() as server:
        trio.run(migrate_postgres, server.url())
        asyncio.run(_print_plans(server.url(), int(sys.argv[1])))
