"""Live streams: past first, then what happens, each once and in order, also over reconnects."""

from __future__ import annotations

import random
import re
from functools import partial

import pytest
import trio

from aiki_gateway import GatewaySettings
from aiki_sdk import Client
from tests.gateway.events import Sse, events_of
from tests.gateway.serving import served
from tests.gateway.sockets import Rejected, websocket

# --- One run --------------------------------------------------------------------------------------


async def test_a_runs_stream_goes_on_behind_the_last_event_seen() -> None:
    """Read in pieces, with a reconnect after each, it is the journal: nothing twice or missing."""
    async with served() as server:
        run_id = await server.start()
        await server.parked(run_id)
        path = f"/v1/runs/{run_id}/stream"
        seen: list[Sse] = []
        async with events_of(server.bound, path) as events:
            seen += await events.take(2)
        async with events_of(server.bound, path, seen[-1].id) as events:
            seen += await events.take(1)
        await server.http.post(f"/v1/runs/{run_id}/events/go", json={"data": "x"})
        await server.ended(run_id)
        async with events_of(server.bound, f"{path}?after={seen[-1].data['seq']}") as events:
            rest = await events.until_end()
        seen += [event for event in rest if event.kind == "update"]

        journal = (await server.http.get(f"/v1/runs/{run_id}/journal")).json()["entries"]
        assert [event.data["seq"] for event in seen] == [entry["seq"] for entry in journal]
        assert [event.id for event in seen] == [str(entry["seq"]) for entry in journal]
        last_seq = journal[-1]["seq"]
        assert rest[-1] == Sse("end", "", {"reason": "ended", "after": last_seq})
        async with events_of(server.bound, path, str(last_seq)) as events:
            assert await events.until_end() == [rest[-1]]


async def test_a_runs_stream_from_latest_tells_only_what_happens_from_now_on() -> None:
    async with served() as server:
        run_id = await server.start()
        await server.parked(run_id)
        async with events_of(server.bound, f"/v1/runs/{run_id}/stream?from=latest") as events:
            await server.http.post(f"/v1/runs/{run_id}/events/go", json={"data": "x"})
            seen = await events.until_end()
        assert seen[0].data["kind"] == "event-accepted"


async def test_a_stream_that_has_nothing_to_say_stays_alive() -> None:
    async with served(GatewaySettings(keep_alive_comment_s=0.05)) as server:
        run_id = await server.start()
        await server.parked(run_id)
        path = f"/v1/runs/{run_id}/stream?from=latest"
        async with events_of(server.bound, path) as events:
            with trio.fail_after(5):
                assert [await events.chunk() for _ in range(4)] == [":\n\n"] * 4


async def test_the_past_of_a_run_that_was_retried_is_one_stream_and_one_write() -> None:
    async with served() as server:
        run_id = await server.start("fail")
        await server.ended(run_id)
        assert (await server.http.post(f"/v1/runs/{run_id}/retry")).is_success
        await server.ended(run_id)
        last = (await server.http.get(f"/v1/runs/{run_id}")).json()["seq"]
        async with events_of(server.bound, f"/v1/runs/{run_id}/stream") as events:
            first = await events.take(1)
            piece = events.unread
            rest = await events.until_end()
    seqs = [event.data["seq"] for event in [*first, *rest[:-1]]]
    statuses = [event.data["status"] for event in [*first, *rest[:-1]]]
    assert seqs == list(range(1, last + 1))
    assert statuses.count("failed") >= 2
    assert rest[-1].data == {"reason": "ended", "after": last}
    assert piece.count("event: update") == last - 1, "what is there already comes in one piece"


async def test_a_stream_that_has_ended_gives_its_connection_back() -> None:
    async with served() as server, Client(server.bound.url) as client:
        ids = [await server.start("greet", name="Ada") for _ in range(5)]
        for run_id in ids:
            await server.ended(run_id)

        async def connections() -> int:
            metrics = (await server.http.get("/metrics")).text
            (found,) = re.findall(r"^aiki_connections_total (\d+)$", metrics, re.MULTILINE)
            return int(found)

        before = await connections()
        for run_id in ids:
            handle = await client.get(run_id)
            assert [update.kind async for update in handle.updates()][-1] == "run-completed"
        assert await connections() == before + 1


@pytest.mark.parametrize("path", ["/v1/runs/none/stream", "/v1/runs/none/stream?from=latest"])
async def test_the_stream_of_no_run_is_404(path: str) -> None:
    async with served() as server:
        assert (await server.http.get(path)).status_code == 404
        run_id = await server.start()
        odd = {"Last-Event-ID": "x"}
        answer = await server.http.get(f"/v1/runs/{run_id}/stream", headers=odd)
        assert answer.status_code == 400


async def test_a_stream_ends_when_it_has_sent_enough_and_tells_where_to_resume() -> None:
    async with served(GatewaySettings(stream_bytes_max=500)) as server:
        run_id = await server.start("greet", name="Ada")
        await server.ended(run_id)
        path = f"/v1/runs/{run_id}/stream"
        seqs: list[int] = []
        after = 0
        while True:
            async with events_of(server.bound, f"{path}?after={after}") as events:
                *updates, end = await events.until_end()
            seqs += [event.data["seq"] for event in updates]
            after = end.data["after"]
            if end.data["reason"] == "ended":
                break
        assert seqs == list(range(1, after + 1))


# --- A namespace ----------------------------------------------------------------------------------


async def test_a_namespaces_stream_is_a_snapshot_and_then_what_happens() -> None:
    async with served() as server:
        old = await server.start()
        await server.parked(old)
        async with events_of(server.bound, "/v1/stream") as events:
            (snapshot,) = await events.take(1)
            assert [run["id"] for run in snapshot.data["runs"]] == [old]
            assert snapshot.data["runs"][0]["status"] == "awaiting_event"
            new = await server.start("greet", name="Ada")
            await server.ended(new)
            updates = await events.take(3)
        assert [event.data["run_id"] for event in updates] == [new] * 3
        assert [event.data["seq"] for event in updates] == [1, 2, 3]


async def test_a_namespaces_stream_resumes_where_it_was_whatever_happened_since() -> None:
    """Also for runs that were unknown to the reader when its connection broke."""
    async with served() as server:
        async with events_of(server.bound, "/v1/stream?from=latest") as events:
            first = await server.start("greet", name="Ada")
            seen = await events.take(2)
        second = await server.start("greet", name="Bob")
        await server.ended(first)
        await server.ended(second)
        total = 0
        for run_id in (first, second):
            total += (await server.http.get(f"/v1/runs/{run_id}")).json()["seq"]
        async with events_of(server.bound, "/v1/stream", seen[-1].id) as events:
            seen += await events.take(total - 2)

        for run_id in (first, second):
            seqs = [event.data["seq"] for event in seen if event.data["run_id"] == run_id]
            assert seqs == list(range(1, len(seqs) + 1))
        assert len(seen) == total


async def test_over_many_reconnects_every_run_is_its_journal() -> None:
    """Forty runs at once, a connection that breaks after every few events: nothing is missed."""
    rng = random.Random(5)
    async with served() as server:
        seen: dict[str, list[int]] = {}
        last_id = ""
        path = "/v1/stream?from=latest"
        async with events_of(server.bound, path) as events, trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(partial(server.start, "greet", name=str(number)))
            (first,) = await events.take(1)
            seen[first.data["run_id"]], last_id = [first.data["seq"]], first.id
        ended = 0
        while ended < 40:
            async with events_of(server.bound, path, last_id) as events:
                for event in await events.take(rng.randrange(1, 9)):
                    seen.setdefault(event.data["run_id"], []).append(event.data["seq"])
                    last_id = event.id
                    ended += event.data["kind"] == "run-completed"
                    if ended == 40:
                        break
        runs = (await server.http.get("/v1/runs?limit=100")).json()["runs"]
        for run in runs:
            info = (await server.http.get(f"/v1/runs/{run['id']}")).json()
            assert seen[run["id"]] == list(range(1, info["seq"] + 1))


async def test_a_quiet_streams_position_moves_on_with_what_it_does_not_select() -> None:
    """Else a reader of rare events would find that its position is not known any more."""
    async with served(GatewaySettings(keep_alive_comment_s=0.05)) as server:
        path = "/v1/stream?workflow=wait&from=latest"
        async with events_of(server.bound, path) as events:
            await server.ended(await server.start("greet", name="Ada"))
            ids: list[str] = []
            while len(ids) < 3:
                chunk = await events.chunk() or ""
                ids += [line[4:] for line in chunk.splitlines() if line.startswith("id: ")]
        assert int(ids[-1].rpartition("-")[2]) >= 4
        async with events_of(server.bound, path, ids[-1]) as events:
            run_id = await server.start()
            (event,) = await events.take(1)
        assert (event.data["run_id"], event.data["seq"]) == (run_id, 1)


async def test_a_stream_of_named_runs_resumes_from_their_journals_after_a_restart() -> None:
    """The position is of a server that is gone; the ids carry the seq of each run as well."""
    async with served() as server:
        run_id = await server.start()
        await server.parked(run_id)
        path = f"/v1/stream?run={run_id}"
        last = f"anotherboot-7;{run_id}=2"
        async with events_of(server.bound, path, last) as events:
            updates = await events.take(2)
        assert [event.data["seq"] for event in updates] == [3, 4]
        async with events_of(server.bound, path, updates[0].id) as events:
            pass
        odd = {"Last-Event-ID": "x;y"}
        assert (await server.http.get(path, headers=odd)).status_code == 400


async def test_published_values_and_what_no_journal_keeps_travel_on_a_stream() -> None:
    async with served() as server, websocket(server.bound) as socket:
        await socket.say(type="subscribe", id="s", from_="latest")
        await socket.say(type="nothing", id="s")
        await socket.hear()
        await server.start("wait")
        updates = [(await socket.hear())["update"] for _ in range(3)]
        published = next(update for update in updates if update["kind"] == "value-published")
        assert published["body"]["value"] == "waiting"
        await server.start("greet", name="Ada")
        while not (update := (await socket.hear())["update"])["live"]:
            pass
        assert update["kind"] == "task-started"


async def test_filters_leave_only_what_they_select() -> None:
    async with served() as server:
        path = "/v1/stream?workflow=greet&status=completed&from=latest"
        async with events_of(server.bound, path) as events:
            await server.start("wait")
            run_id = await server.start("greet", name="Ada")
            (update,) = await events.take(1)
        assert (update.data["run_id"], update.data["kind"]) == (run_id, "run-completed")


async def test_namespaces_streams_do_not_see_each_other() -> None:
    async with served() as server:
        path = "/v1/stream?from=latest&namespace="
        async with (
            events_of(server.bound, path + "other") as other,
            events_of(server.bound, path + "default") as own,
        ):
            await server.start("greet", name="Ada")
            await own.take(2)
            with trio.move_on_after(0.1) as scope:
                await other.next()
            assert scope.cancelled_caught


GATHERING = GatewaySettings(stream_writes_per_s=1e-6, subscriber_updates_max=110)
"""Updates gather until there are enough of them that more would cut the reader off."""


async def test_what_follows_a_first_batch_gathers_on_every_kind_of_stream() -> None:
    async with (
        served(GATHERING) as server,
        events_of(server.bound, "/v1/stream?from=latest") as events,
        websocket(server.bound) as socket,
    ):
        await socket.say(type="subscribe", id="s")
        assert (await socket.hear())["type"] == "snapshot"
        first = await server.start("greet", name="Ada")
        assert [event.data["seq"] for event in await events.take(2)] == [1, 2]
        assert [(await socket.update())["update"]["seq"] for _ in range(2)] == [1, 2]
        await server.ended(first)
        for hear in (events.next, socket.update):
            with trio.move_on_after(0.2) as scope:
                told = await hear()
                assert told is None, "it was told before enough had gathered"
            assert scope.cancelled_caught
        for _ in range(15):
            await server.ended(await server.start("greet", name="Bob"))
        assert [event.data["seq"] for event in await events.take(2)] == [3, 4]
        assert [(await socket.update())["update"]["seq"] for _ in range(2)] == [3, 4]


# --- The websocket --------------------------------------------------------------------------------


async def test_a_websocket_carries_many_subscriptions_and_drops_them_again() -> None:
    async with served() as server, websocket(server.bound) as socket:
        await socket.say(type="subscribe", id="all")
        assert await socket.hear() == {"type": "snapshot", "id": "all", "runs": [], "more": False}
        await socket.say(type="subscribe", id="done", statuses=["completed"], from_="latest")
        run_id = await server.start("greet", name="Ada")
        heard = [await socket.update() for _ in range(5)]
        assert [one["update"]["seq"] for one in heard if one["id"] == "all"] == [1, 2, 3, 4]
        (done,) = [one for one in heard if one["id"] == "done"]
        assert done["update"]["run_id"] == run_id
        await socket.say(type="unsubscribe", id="all")
        await socket.say(type="unsubscribe", id="all")
        error = await socket.hear()
        assert (error["type"], error["id"]) == ("error", "all")
        assert error["error"]["code"] == "not-found"


async def test_a_subscription_of_named_runs_resumes_by_cursor_and_ends_with_them() -> None:
    async with served() as server, websocket(server.bound) as socket:
        run_id = await server.start()
        await server.parked(run_id)
        await socket.say(type="subscribe", id="s", runs=[run_id], after={run_id: 2})
        seqs: list[int] = []
        await server.http.post(f"/v1/runs/{run_id}/events/go", json={"data": "x"})
        while (message := await socket.hear())["type"] != "end":
            if message["type"] == "update" and not message["update"]["live"]:
                seqs.append(message["update"]["seq"])
        last = (await server.http.get(f"/v1/runs/{run_id}")).json()["seq"]
        assert seqs == list(range(3, last + 1))
        assert (message["run_id"], message["reason"]) == (run_id, "ended")
        assert message["after"] == {run_id: last}
        assert (await socket.hear())["reason"] == "ended"


async def test_a_subscription_resumes_by_position() -> None:
    async with served() as server:
        async with websocket(server.bound) as socket:
            await socket.say(type="subscribe", id="s", from_="latest")
            await socket.say(type="nothing", id="s")
            await socket.hear()
            await server.start("greet", name="Ada")
            position = (await socket.hear())["position"]
        second = await server.start("greet", name="Bob")
        await server.ended(second)
        async with websocket(server.bound) as socket:
            await socket.say(type="subscribe", id="s", position=position)
            heard = [await socket.update() for _ in range(7)]
        seqs = [one["update"]["seq"] for one in heard]
        assert sorted(seqs) == [1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("{", "not a JSON document"),
        ("[]", "send a JSON object"),
        (b"\x00", "not bytes"),
        ('{"type": "subscribe"}', "id is not valid"),
        ('{"type": "dance", "id": "x"}', "use subscribe or unsubscribe"),
        ('{"type": "subscribe", "id": "x", "from": "start"}', "from is not valid"),
        ('{"type": "subscribe", "id": "x", "run": []}', "'run', which is not known"),
        ('{"type": "subscribe", "id": "x", "statuses": ["done"]}', "statuses"),
        ('{"type": "subscribe", "id": "x", "after": {"a": "b"}}', "after"),
        ('{"type": "subscribe", "id": "' + "x" * 101 + '"}', "limited to 100"),
        ('{"type": "subscribe", "id": "x", "id": "y"}', "'id' twice"),
    ],
)
async def test_messages_that_are_not_valid_are_answered_and_survived(
    message: str | bytes, reason: str
) -> None:
    async with served() as server, websocket(server.bound) as socket:
        await socket.say(message)
        error = await socket.hear()
        assert (error["type"], error["error"]["status"]) == ("error", error["error"]["status"])
        assert reason in error["error"]["detail"]
        await socket.say(type="subscribe", id="fine")
        assert (await socket.hear())["type"] == "snapshot"


async def test_a_client_that_only_makes_mistakes_is_closed() -> None:
    async with served() as server, websocket(server.bound) as socket:
        for _ in range(100):
            await socket.say("?")
        assert await socket.closed() == 1008


async def test_one_subscription_more_than_allowed_is_refused() -> None:
    async with (
        served(GatewaySettings(subscriptions_max=2)) as server,
        websocket(server.bound) as socket,
    ):
        for n in range(3):
            await socket.say(type="subscribe", id=f"s{n}", from_="latest")
        assert (await socket.hear())["error"]["code"] == "limit-exceeded"


async def test_a_reader_that_falls_behind_is_cut_off_and_resumes_by_its_cursors() -> None:
    """It reads nothing while more happens than its buffer and the socket's can hold."""
    settings = GatewaySettings(subscriber_updates_max=10)
    async with served(settings) as server, websocket(server.bound) as socket:
        await socket.say(type="subscribe", id="s", from_="latest", workflows=["greet"])
        for _ in range(12):
            run_id = await server.start("greet", name="x" * 1_500_000)
            await server.ended(run_id)
        seen: dict[str, int] = {}
        while (message := await socket.hear())["type"] == "update":
            update = message["update"]
            if update["live"]:
                continue
            assert update["seq"] == seen.get(update["run_id"], 0) + 1
            seen[update["run_id"]] = update["seq"]
        assert (message["type"], message["reason"]) == ("end", "slow")
        assert message["after"] == seen
        await socket.say(type="subscribe", id="s", after=message["after"])
        again = await socket.hear()
        while again["type"] == "update":
            update = again["update"]
            assert update["seq"] == seen[update["run_id"]] + 1
            seen[update["run_id"]] += 1
            again = await socket.hear()
        assert again["type"] == "snapshot"
        assert len(again["runs"]) == 12 - len(seen)


async def test_websockets_of_other_paths_and_namespaces_are_refused() -> None:
    async with served() as server:
        for path, status in (("/v1/nope", 404), ("/v1/stream?namespace=a%20b", 400)):
            with pytest.raises(Rejected) as refused:
                async with websocket(server.bound, path):
                    pass
            assert refused.value.status == status
