"""A server and workers as real processes, over real sockets, killed and cut off."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from aiki_sdk import Client
from aiki_sdk.client import RunHandle
from aiki_sdk.protocol import RunStatus
from tests.session.processes import Proxy, Rig, rig
from tests.session.programs import go, steps, steps_2

pytestmark = pytest.mark.slow

LENGTH = 10
TOTAL = sum(range(LENGTH))


async def _claims_lost(client: Client, rig: Rig, handles: list[object]) -> int:
    lost = 0
    for handle in handles:
        history = await handle.history()  # type: ignore[attr-defined]
        assert [entry.seq for entry in history] == list(range(1, len(history) + 1))
        kinds = [entry.kind for entry in history]
        assert kinds.count("task-succeeded") == LENGTH
        lost += kinds.count("claim-lost")
    return lost


async def test_kill_9_of_a_worker_loses_nothing_and_repeats_nothing_that_was_finished(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r, Client(r.url) as client:
        first = await r.start_worker()
        await r.start_worker()
        handles = await r.start_runs(client, 30, LENGTH, 50)
        await r.until_effects(60)
        await r.kill(first)
        assert await r.results(handles) == [TOTAL] * 30
        lost = await _claims_lost(client, r, handles)
        assert lost > 0
        effects = r.effects()
        assert len(effects) == 300
        assert effects.total() - 300 <= lost, "only what was under way was repeated"


async def test_kill_9_and_restart_of_the_server_repeats_nothing_at_all(tmp_path: Path) -> None:
    async with rig(tmp_path, grace_s=20, lease_s=60) as r, Client(r.url) as client:
        await r.start_worker()
        waiting = await r.start_waiting(client)
        handles = await r.start_runs(client, 30, LENGTH, 20)
        for _ in range(2):
            await r.until_effects(min(r.effects().total() + 40, 250))
            await r.kill(r.server)
            await r.start_server()
        assert await r.results(handles) == [TOTAL] * 30
        assert await _claims_lost(client, r, handles) == 0
        await waiting.send(go, "on")
        assert await waiting.result(timeout=10) == "on"
        assert set(r.effects().values()) == {1}


@pytest.mark.parametrize("direction", ["up", "down", "both"])
async def test_a_cut_network_is_survived_whichever_direction_is_cut(
    tmp_path: Path, direction: str
) -> None:
    async with rig(tmp_path) as r, Client(r.url) as client, trio.open_nursery() as nursery:
        proxy = Proxy(r.port)
        await nursery.start(proxy.run)
        await r.start_worker(url=f"http://127.0.0.1:{proxy.port}")
        handles = await r.start_runs(client, 10, LENGTH, 50)
        await r.until_effects(30)
        proxy.up, proxy.down = direction == "down", direction == "up"
        await trio.sleep(2.5)
        at_rest = r.effects().total()
        await trio.sleep(0.3)
        assert r.effects().total() == at_rest, "the worker stopped by itself"
        proxy.up = proxy.down = True
        assert await r.results(handles) == [TOTAL] * 10
        lost = await _claims_lost(client, r, handles)
        assert r.effects().total() - 100 <= lost
        nursery.cancel_scope.cancel()


async def test_a_worker_that_was_stopped_past_its_lease_writes_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, Client(r.url) as client:
        zombie = await r.start_worker()
        handles = await r.start_runs(client, 10, LENGTH, 50)
        await r.until_effects(30)
        zombie.send_signal(signal.SIGSTOP)
        await r.start_worker()
        assert await r.results(handles) == [TOTAL] * 10
        before = [len(await handle.history()) for handle in handles]
        zombie.send_signal(signal.SIGCONT)
        await trio.sleep(1)
        assert [len(await handle.history()) for handle in handles] == before
        more = await r.start_runs(client, 5, 2, 1)
        assert await r.results(more) == [1] * 5
        assert zombie.returncode is None


async def test_sigterm_lets_running_tasks_end_and_gives_the_rest_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, Client(r.url) as client:
        worker = await r.start_worker()
        handles = await r.start_runs(client, 20, LENGTH, 50)
        await r.until_effects(40)
        worker.terminate()
        with trio.fail_after(6):
            assert await worker.wait() == 0
        assert r.effects().total() < 200
        await r.start_worker()
        assert await r.results(handles) == [TOTAL] * 20
        assert await _claims_lost(client, r, handles) == 0
        assert set(r.effects().values()) == {1}, "what had begun was finished first"


async def test_two_versions_live_side_by_side(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, Client(r.url) as client:
        await r.start_worker(version="1")
        await r.start_worker(version="2")
        old = await client.start(steps, r.sink, "old", 3, 1)
        new = await client.start(steps_2, r.sink, "new", 3, 1)
        newest = await client.start(
            "steps", {"sink": r.sink, "name": "any", "count": 1, "pause_ms": 1}
        )
        assert await old.result(timeout=10) == 3
        assert await new.result(timeout=10) == -1
        assert await newest.result(timeout=10) == -1
        known = [(one.name, one.version) for one in await client.workflows()]
        assert known == [("steps", "1.0.0"), ("steps", "2.0.0"), ("waits", "1.0.0")]


async def test_a_rolling_restart_loses_nothing_and_every_run_keeps_its_version(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, grace_s=20, lease_s=60) as r, Client(r.url) as client:
        workers = [await r.start_worker() for _ in range(3)]
        waiting = await r.start_waiting(client)
        old = await r.start_runs(client, 30, LENGTH, 250)
        new: list[RunHandle[int]] = []
        for number, worker in enumerate(workers):
            await r.until_effects(60 * (number + 1))
            worker.terminate()
            assert await worker.wait() == 0
            await r.start_worker(version="both")
            new += [
                await client.start(steps_2, r.sink, f"n{number}-{one}", 3, 20) for one in range(5)
            ]
        assert await r.results(old) == [TOTAL] * 30, "the second version returns something else"
        assert await r.results(new) == [-1] * 15
        assert await _claims_lost(client, r, old) == 0
        assert {(await handle.info()).version for handle in old} == {"1.0.0"}
        kinds = [entry.kind for handle in old for entry in await handle.history()]
        assert kinds.count("run-claimed") > 30, "runs went from worker to worker"
        await waiting.send(go, "on")
        assert await r.results([waiting]) == ["on"]
        effects = r.effects()
        assert len(effects) == 30 * LENGTH + 15 * 3 + 2
        assert set(effects.values()) == {1}, "what had begun was finished first"


async def test_a_run_whose_version_nobody_has_any_more_is_listed_and_ends_when_somebody_has_it(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r, Client(r.url) as client:
        old = await r.start_worker()
        waiting = await r.start_waiting(client)
        await r.until_effects(1)
        old.terminate()
        assert await old.wait() == 0
        await r.start_worker(version="2")
        await waiting.send(go, "on")
        lacking = [run async for run in client.list(undeliverable=True)]
        assert [(run.id, run.workflow, run.version) for run in lacking] == [
            (waiting.id, "waits", "1.0.0")
        ]
        await r.start_worker(version="both")
        assert await r.results([waiting]) == ["on"]
        assert await client.count(undeliverable=True) == 0
        assert set(r.effects().values()) == {1}


async def test_runs_wait_for_a_worker_of_their_workflow(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, Client(r.url) as client:
        handle = await client.start(steps, r.sink, "early", 2, 1)
        assert await handle.status() is RunStatus.QUEUED, "its definition came along with the start"
        await r.start_worker()
        assert await handle.result(timeout=10) == 1
