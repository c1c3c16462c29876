"""Runs over HTTP: every route does what it says, and answers what the OpenAPI document says."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from tests.gateway.serving import served, until


async def test_a_started_run_ends_and_can_be_looked_at() -> None:
    async with served() as server:
        answer = await server.http.post(
            "/v1/runs", json={"workflow": "greet", "input": {"name": "Ada"}}
        )
        run_id = answer.json()["run_id"]

        assert answer.status_code == 201
        assert answer.headers["location"] == f"/v1/runs/{run_id}"
        assert (await server.ended(run_id))["output"] == "hello Ada"

        info = (await server.http.get(f"/v1/runs/{run_id}")).json()
        assert (info["status"], info["input"]) == ("completed", {"name": "Ada", "excited": False})

        entries = (await server.http.get(f"/v1/runs/{run_id}/journal")).json()["entries"]
        assert [entry["seq"] for entry in entries] == list(range(1, info["seq"] + 1))
        after = await server.http.get(f"/v1/runs/{run_id}/journal?after=2&limit=1")
        assert [entry["seq"] for entry in after.json()["entries"]] == [3]


async def test_an_idempotency_key_starts_one_run_and_refuses_another_input() -> None:
    async with served() as server:
        headers = {"Idempotency-Key": "order 7"}
        body = {"workflow": "greet", "input": {"name": "Ada"}}
        first = await server.http.post("/v1/runs", json=body, headers=headers)
        again = await server.http.post("/v1/runs", json=body, headers=headers)
        other = await server.http.post(
            "/v1/runs", json={**body, "input": {"name": "Bob"}}, headers=headers
        )

        assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
        assert again.json() == {"run_id": first.json()["run_id"], "created": False}
        assert other.json()["code"] == "reference-conflict"
        found = await server.http.get(
            "/v1/runs/find",
            params={"workflow": "greet", "reference_id": "idempotency:order 7"},
        )
        assert found.json()["id"] == first.json()["run_id"]


async def test_an_idempotency_key_of_a_batch_counts_for_each_run_by_its_place() -> None:
    async with served() as server:
        headers = {"Idempotency-Key": "orders of today"}
        own = {"workflow": "greet", "input": {"name": "Bob"}, "reference_id": "mine"}
        runs: list[Any] = [{"workflow": "greet", "input": {"name": "Ada"}}] * 2 + [own]

        async def start(runs: list[Any], key: dict[str, str]) -> list[Any]:
            answer = await server.http.post("/v1/runs/batch", json={"runs": runs}, headers=key)
            assert answer.status_code == 200
            results: list[Any] = answer.json()["results"]
            return results

        first = await start(runs, headers)
        again = await start(runs, headers)
        ids = [one["result"]["run_id"] for one in first]
        assert len(set(ids)) == 3
        assert [one["result"] for one in again] == [
            {"run_id": run_id, "created": False} for run_id in ids
        ]
        other = await start([{"workflow": "greet", "input": {"name": "Eve"}}], headers)
        assert other[0]["error"]["code"] == "reference-conflict"
        mine = await server.http.get(f"/v1/runs/{ids[2]}")
        assert mine.json()["reference_id"] == "mine"
        bare = await start(runs[:1], {})
        assert bare[0]["result"]["run_id"] not in ids
        refused = await server.http.post(
            "/v1/runs/batch", json={"runs": runs}, headers={"Idempotency-Key": "x" * 201}
        )
        assert refused.status_code == 400


async def test_undeliverable_runs_are_those_that_no_worker_serves() -> None:
    async with served() as server:
        body = {"workflow": "greet", "input": {"name": "Ada"}}
        lacking = await server.http.post("/v1/runs", json={**body, "pool": "nobody"})
        served_run = await server.http.post("/v1/runs", json=body)
        await server.ended(served_run.json()["run_id"])
        page = (await server.http.get("/v1/runs?undeliverable=true&limit=1")).json()
        assert [run["id"] for run in page["runs"]] == [lacking.json()["run_id"]]
        count = await server.http.get("/v1/runs/count?undeliverable=true")
        assert count.json() == {"count": 1}
        every = await server.http.get("/v1/runs/count?undeliverable=false")
        assert every.json() == {"count": 2}
        refused = await server.http.get("/v1/runs?undeliverable=yes")
        assert refused.status_code == 400


async def test_a_batch_starts_what_can_be_started() -> None:
    async with served() as server:
        runs = [
            {"workflow": "greet", "input": {"name": "Ada"}},
            {"workflow": "nope", "input": {}},
            {"workflow": "greet", "input": {"wrong": 1}},
        ]
        answer = await server.http.post("/v1/runs/batch", json={"runs": runs})
        good, unknown, unfit = answer.json()["results"]

        assert answer.status_code == 200
        assert good["result"]["created"]
        assert unknown["error"]["code"] == "unknown-workflow"
        assert unfit["error"]["code"] in {"payload", "invalid-request"}


async def test_pages_and_filters_find_every_run_once() -> None:
    async with served() as server:
        before = datetime.now(UTC).isoformat()
        bodies = [
            {"workflow": "greet", "input": {"name": str(n)}, "labels": {"n": str(n), "all": "x:y"}}
            for n in range(7)
        ]
        await server.http.post("/v1/runs/batch", json={"runs": bodies})

        seen: list[str] = []
        params: dict[str, str | int] = {"limit": 3, "label": "all:x:y", "created_after": before}
        while True:
            page = (await server.http.get("/v1/runs", params=params)).json()
            seen += [run["id"] for run in page["runs"]]
            if page["cursor"] is None:
                break
            params["cursor"] = page["cursor"]
        assert len(seen) == len(set(seen)) == 7

        one = (await server.http.get("/v1/runs", params={"label": "n:3"})).json()["runs"]
        assert [run["labels"]["n"] for run in one] == ["3"]
        count = await server.http.get("/v1/runs/count?status=failed&status=cancelled")
        assert count.json() == {"count": 0}


async def test_a_long_poll_ends_with_the_run_or_with_its_time() -> None:
    async with served() as server:
        run_id = await server.start()
        await server.parked(run_id)
        pending = await server.http.get(f"/v1/runs/{run_id}/result?wait=0.05")
        assert (pending.status_code, pending.json()) == (202, {"status": "awaiting_event"})

        outcomes: list[dict[str, object]] = []
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                outcomes.append(await server.ended(run_id))

            nursery.start_soon(wait)
            sent = await server.http.post(f"/v1/runs/{run_id}/events/go", json={"data": "now"})
            assert not sent.json()["duplicate"]
        assert outcomes[0]["output"] == "now"


async def test_a_client_that_goes_away_ends_its_long_poll() -> None:
    """The waiter of the hub is given back when the connection closes, not a minute later."""
    async with served() as server:
        run_id = await server.start()
        await server.parked(run_id)
        with trio.move_on_after(0.2):
            await server.http.get(f"/v1/runs/{run_id}/result?wait=60")
        await until(lambda: "0 waiters" in server.runtime.hub.describe())


async def test_an_event_with_slashes_in_its_name_and_a_key_is_taken_once() -> None:
    async with served() as server:
        run_id = await server.start()
        path = f"/v1/runs/{run_id}/events/orders/paid"
        first = await server.http.post(path, json={"data": 1}, headers={"Idempotency-Key": "k"})
        again = await server.http.post(path, json={"data": 1}, headers={"Idempotency-Key": "k"})
        escaped = await server.http.post(
            f"/v1/runs/{run_id}/events/orders%2Fpaid", json={"data": 2}
        )

        assert (first.json()["duplicate"], again.json()["duplicate"]) == (False, True)
        assert escaped.status_code == 200


async def test_commands_take_effect_and_are_refused_in_the_wrong_state() -> None:
    async with served() as server:
        run_id = await server.start("sleep")
        await server.parked(run_id)

        async def command(name: str, **body: str) -> int:
            answer = await server.http.post(f"/v1/runs/{run_id}/{name}", json=body)
            return answer.status_code

        assert await command("pause", reason="lunch") == 204
        assert (await server.http.get(f"/v1/runs/{run_id}")).json()["reason"] == "lunch"
        assert await command("resume") == 204
        assert await command("wake", sleep="nap") == 204
        assert (await server.ended(run_id))["status"] == "completed"
        assert await command("cancel") == 409
        assert await command("wake", reason="x") == 400
        assert (await server.http.post(f"/v1/runs/{run_id}/cancel")).status_code == 409


async def test_a_fork_is_a_new_run() -> None:
    async with served() as server:
        run_id = await server.start("greet", name="Ada")
        await server.ended(run_id)
        body = {"at": 1, "input": {"name": "Bob"}}
        answer = await server.http.post(f"/v1/runs/{run_id}/fork", json=body)

        assert answer.status_code == 201
        assert (await server.ended(answer.json()["run_id"]))["output"] == "hello Bob"


async def test_bulk_does_one_thing_to_ids_or_to_a_filter() -> None:
    async with served() as server:
        ids = [await server.start(name=str(n)) for n in range(4)]
        for run_id in ids:
            await server.parked(run_id)
        event = {"event": {"event": "go", "data": "bulk"}}
        answer = await server.http.post(
            "/v1/runs/bulk", json={"run_ids": [*ids[:2], "run_missing"], **event}
        )
        results = answer.json()["results"]
        assert [result["ok"] for result in results] == [True, True, False]
        assert results[2]["error"]["code"] == "not-found"

        page = await server.http.post(
            "/v1/runs/bulk",
            json={
                "filter": {"status": ["awaiting_event"], "limit": 1},
                "control": {"command": "cancel", "reason": "done"},
            },
        )
        assert [result["ok"] for result in page.json()["results"]] == [True]
        assert page.json()["cursor"] is not None


async def test_namespaces_do_not_see_each_other() -> None:
    async with served() as server:
        run_id = await server.start()
        other = {"Aiki-Namespace": "other"}
        assert (await server.http.get(f"/v1/runs/{run_id}", headers=other)).status_code == 404
        cancel = await server.http.post(f"/v1/runs/{run_id}/cancel", headers=other)
        assert cancel.status_code == 404
        journal = await server.http.get(f"/v1/runs/{run_id}/journal", headers=other)
        assert journal.status_code == 404
        runs = await server.http.get("/v1/runs", headers=other)
        assert runs.json()["runs"] == []
        bad = await server.http.get("/v1/runs", headers={"Aiki-Namespace": "a b"})
        assert bad.status_code == 400


async def test_the_server_tells_what_it_knows_and_how_it_is() -> None:
    async with served() as server:
        get = server.http.get
        names = [one["name"] for one in (await get("/v1/workflows")).json()["workflows"]]
        assert names == ["fail", "greet", "sleep", "wait"]
        (worker,) = (await get("/v1/workers")).json()["workers"]
        assert "greet@1.0.0" in worker["workflows"]
        tree = (await get("/v1/tree")).json()
        assert "gateway" in [child["name"] for child in tree["children"]]
        assert (await get("/readyz")).json()["status"] == "ok"
        assert (await get("/healthz")).json() == {"status": "ok"}
        head = await server.http.head("/v1/workflows")
        assert (head.status_code, head.content) == (200, b"")
        metrics = (await get("/metrics")).text
        assert 'aiki_http_requests_total{operation="listWorkflows",status="200"} 2' in metrics


async def test_every_metric_is_in_the_reference_and_nothing_else() -> None:
    async with served() as server:
        metrics = (await server.http.get("/metrics")).text
    counted = re.findall(r"^# TYPE (\w+) ", metrics, re.MULTILINE)
    page = (Path(__file__).parents[2] / "docs/reference/http.md").read_text()
    assert re.findall(r"^\| `(aiki_\w+)` \|", page, re.MULTILINE) == counted
