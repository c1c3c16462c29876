"""No question and no write reads through a table, however many runs there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import attrs
import pytest

from aiki_actors.engine import Micros
from aiki_actors.storage import DueRun, KnownWorkflow, RunFilter
from aiki_actors.storage.postgres import open_postgres
from aiki_actors.storage.postgres._asyncio import open_asyncio
from aiki_sdk.protocol import RunStatus
from tests.contract.storage_cases import NOW, add, create, notice, settle
from tests.postgres.cases import OK, PATIENT, ask
from tests.postgres.many import connect, explain, fill, nodes, questions
from tests.servers.postgres import PostgresServer, open_database

RUNS = 100_000


@pytest.fixture
async def filled() -> AsyncGenerator[str, None]:
    """A database with many runs."""
    async with open_database() as url, open_asyncio() as asyncio:
        await asyncio.run(fill(url, RUNS))
        yield url


SCANS = (
    "SELECT coalesce(string_agg(relname || ' ' || seq_scan, ', '), '') FROM pg_stat_user_tables"
    " WHERE schemaname = 'aiki' AND seq_scan > 0"
    " AND relname NOT IN ('schema_version', 'writers')"
)


async def test_every_question_is_answered_by_its_index_and_no_write_reads_a_table(
    filled: str, shared: PostgresServer
) -> None:
    async with open_asyncio() as asyncio:
        connection = await asyncio.run(connect(filled))
        for question in questions():
            plan = await asyncio.run(explain(connection, question))
            found = list(nodes(plan["Plan"]))
            kinds = {node["Node Type"] for node in found}
            assert not kinds & {"Seq Scan", "Bitmap Heap Scan"}, (question.name, plan)
            used = {node.get("Index Name") for node in found}
            assert used & set(question.index.split("|")), (question.name, used)
        await asyncio.run(connection.close())
    # How the tables were filled does not count.
    await ask(shared, filled, "SELECT pg_stat_reset()")
    await use(filled)
    counted = "SELECT sum(idx_scan) FROM pg_stat_user_tables WHERE schemaname = 'aiki'"
    assert await ask(shared, filled, counted) > 100
    assert await ask(shared, filled, SCANS) == ""


async def use(url: str) -> None:
    """Do everything that a storage can do, often enough for plans to be kept."""
    async with open_postgres(url, attrs.evolve(PATIENT, writers=2)) as storage:
        for turn in range(8):
            first, second = f"run_x{turn}", f"run_y{turn}"
            labels = {"team": "x"}
            owed = notice(first, 1, 0, second)
            change = attrs.evolve(create(first, labels=labels, reference_id=first), notices=(owed,))
            assert await storage.append([change, create(second)]) == [OK, OK]
            again = create(f"run_z{turn}", reference_id=first, supersedes=first)
            ended = add(first, 2, ended_at=Micros(NOW - 1), status=RunStatus.COMPLETED)
            batch = [ended, settle(second, 2, owed.id), again, add(second, 9)]
            assert (await storage.append(batch))[:3] == [OK, OK, OK]
            assert await storage.delete_ended(before=NOW, limit=1) == 1
            assert await storage.delete_ended(before=NOW, limit=1, namespace="default") == 0
            keep = [f"workflow-{number}" for number in range(1, 20)]
            assert await storage.delete_ended(before=NOW, limit=9, excluding=keep) == 0
            await storage.put_workflows([KnownWorkflow("default", "x", str(turn), {})])
            await storage.journal(second)
            await storage.run(second)
            await storage.find("default", "order", first)
            for where in FILTERS:
                page = await storage.runs(where, limit=50)
                await storage.runs(where, limit=50, cursor=page.cursor)
                await storage.count(where)
            await storage.ready(limit=50, exclude=[first])
            await storage.ready(limit=50)
            await storage.due(before=Micros(NOW + 10**9), limit=50)
            await storage.due(before=Micros(NOW + 10**9), limit=50, after=DueRun(first, NOW))
            await storage.claimed(limit=50)
            await storage.notices(limit=50)
            await storage.workflows()


FILTERS = (
    RunFilter("default"),
    RunFilter("default", status=(RunStatus.STALLED, RunStatus.QUEUED)),
    RunFilter("default", workflow="workflow-3", version="1"),
    RunFilter("default", workflow="workflow-3", status=(RunStatus.STALLED, RunStatus.QUEUED)),
    RunFilter("default", reference_id="reference-41"),
    RunFilter("default", parent_id="run_" + "50".rjust(26, "0")),
    RunFilter("default", labels=(("team", "x"), ("team", "3"))),
)
