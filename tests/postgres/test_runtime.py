"""A whole runtime on PostgreSQL: its runs survive crashes of the process and of the database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio

from aiki_actors.engine import TaskSucceeded
from aiki_actors.storage import RunFilter
from aiki_actors.storage.postgres import migrate_postgres, open_postgres_reader
from tests.postgres.program import EXPECTED, STEPS, run_all
from tests.servers.postgres import PostgresServer

RUNS = 10
WHERE = RunFilter("default", workflow="steps")


def effects_of(path: Path) -> Counter[str]:
    return Counter(path.read_text(encoding="utf-8").splitlines())


async def test_workflows_run_on_postgresql(url: str, tmp_path: Path) -> None:
    with trio.fail_after(60):
        assert await run_all(url, tmp_path / "effects", RUNS) == [EXPECTED] * RUNS
    effects = effects_of(tmp_path / "effects")
    assert len(effects) == RUNS * (STEPS + 1)
    assert set(effects.values()) == {1}


def live(url: str, effects: Path, fault: str) -> int:
    """Run the program once, to its end or to a fault; return the exit code."""
    return subprocess.run(
        [sys.executable, "-m", "tests.postgres.program", url, str(effects), str(RUNS)],
        env={**os.environ, "AIKI_FAULT": fault, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=False,
    ).returncode


async def test_runs_survive_a_process_that_is_killed_before_and_after_commits(
    url: str, tmp_path: Path
) -> None:
    """Another runtime takes over, and repeats at most what was not recorded."""
    effects = tmp_path / "effects"
    for fault in ("commit.done:4", "commit.begun:7", "commit.done:12"):
        code = await trio.to_thread.run_sync(live, url, effects, fault)
        assert code == -signal.SIGKILL, fault
    with trio.fail_after(90):
        assert await run_all(url, effects, RUNS) == [EXPECTED] * RUNS
    found = effects_of(effects)
    assert len(found) == RUNS * (STEPS + 1)
    # Each life can have left at most one attempt of a run without its outcome on record.
    assert max(found.values()) <= 4
    async with open_postgres_reader(url) as reader:
        page = await reader.runs(WHERE, limit=100)
        for run in page.runs:
            journal = await reader.journal(run.run_id)
            assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
            done = Counter(
                entry.body.call for entry in journal if isinstance(entry.body, TaskSucceeded)
            )
            assert set(done.values()) <= {1}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_runs_survive_a_database_that_is_restarted_under_them(
    own_server: PostgresServer, tmp_path: Path, how: signal.Signals
) -> None:
    await migrate_postgres(own_server.url())
    effects = tmp_path / "effects"
    results: list[int] = []

    async def work() -> None:
        results.extend(await run_all(own_server.url(), effects, RUNS))

    stop = own_server.kill if how == signal.SIGKILL else own_server.stop
    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for lines in (3, 25):
                while not effects.exists() or effects.read_bytes().count(b"\n") < lines:  # noqa: ASYNC110  # what a file tells
                    await trio.sleep(0.005)
                await trio.to_thread.run_sync(stop)
                own_server.start()
    assert results == [EXPECTED] * RUNS
    # A result that could not be written is tried again; its task is not.
    assert set(effects_of(effects).values()) == {1}
