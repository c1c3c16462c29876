"""Who may call: keys, origins of browsers, host names, rates."""

from __future__ import annotations

import pytest
from attrs import evolve

from aiki_gateway import GatewaySettings, key_hash
from aiki_sdk import InvalidRequest
from tests.gateway.serving import raw, served

KEY = "aiki_test_key"
HASH = key_hash(KEY)
WITH_KEY = GatewaySettings(api_key_hashes=("0" * 64, HASH))
UPGRADE = (
    "GET /v1/stream HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)


async def test_with_keys_only_their_holders_are_let_in() -> None:
    async with served(WITH_KEY) as server:
        get = server.http.get
        for authorization in ("", "Bearer", "Bearer nope", f"Basic {KEY}", f"Bearer {HASH}"):
            answer = await get("/v1/runs", headers={"Authorization": authorization})
            assert answer.status_code == 401, authorization
            assert answer.headers["www-authenticate"] == "Bearer"
            assert KEY not in answer.text
        assert (await get("/v1/runs")).status_code == 401
        assert (await get("/metrics")).status_code == 401
        good = await get("/v1/runs", headers={"Authorization": f"Bearer {KEY}"})
        assert good.status_code == 200
        assert (await get("/healthz")).status_code == 200
        socket = await raw(server.bound, UPGRADE.format(host="localhost", more="").encode())
        assert b" 401 " in socket.partition(b"\r\n")[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])
async def test_without_keys_only_this_machine_is_served(host: str) -> None:
    async with served() as server:
        await server.runtime.system.root.stop_child("gateway")
        with pytest.raises(InvalidRequest, match="allow_open=True"):
            await server.runtime.serve(host=host, port=0)


async def test_an_open_server_without_keys_is_possible_if_it_is_wanted() -> None:
    async with served() as server:
        await server.runtime.system.root.stop_child("gateway")
        settings = GatewaySettings(allow_open=True)
        bound = await server.runtime.serve(host="0.0.0.0", port=0, settings=settings)
        answer = await raw(
            evolve(bound, host="127.0.0.1"),
            b"GET /healthz HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n",
        )
        assert answer.startswith(b"HTTP/1.1 200")


async def test_a_page_of_another_site_can_neither_call_nor_rebind_its_name() -> None:
    async with served() as server:
        evil = {"Origin": "https://evil.example"}
        body = {"workflow": "greet", "input": {"name": "Ada"}}
        assert (await server.http.post("/v1/runs", json=body, headers=evil)).status_code == 403
        rebound = await server.http.get("/v1/runs", headers={"Host": "evil.example"})
        assert rebound.status_code == 403
        own = {"Origin": server.bound.url}
        assert (await server.http.get("/v1/runs", headers=own)).status_code == 200
        for host, more in (("localhost", "Origin: https://evil.example\r\n"), ("evil.example", "")):
            answer = await raw(server.bound, UPGRADE.format(host=host, more=more).encode())
            assert b" 403 " in answer.partition(b"\r\n")[0]


async def test_allowed_origins_are_let_in_and_told_so() -> None:
    origin = "https://app.example.org"
    async with served(GatewaySettings(allowed_origins=(origin,))) as server:
        answer = await server.http.get("/v1/runs", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        asked = await server.http.options("/v1/runs", headers={"Origin": origin})
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-methods"] == "GET, HEAD, POST"
        other = await server.http.get("/v1/runs", headers={"Origin": "https://app.example"})
        assert other.status_code == 403
        assert "access-control-allow-origin" not in other.headers


async def test_an_address_that_asks_too_often_is_told_when_to_come_back() -> None:
    settings = GatewaySettings(requests_per_s=0.5, requests_burst=3)
    async with served(settings) as server:
        statuses = [(await server.http.get("/healthz")).status_code for _ in range(3)]
        over = await server.http.get("/v1/runs")

        assert statuses == [200, 200, 200]
        assert (over.status_code, over.json()["code"]) == (429, "limit-exceeded")
        assert 1 <= int(over.headers["retry-after"]) <= 2


@pytest.mark.parametrize(
    "wrong", [{"body_bytes_max": 0}, {"ping_s": -1}, {"api_key_hashes": (KEY,)}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="is not valid") as caught:
        GatewaySettings(**wrong)  # type: ignore[arg-type]
    assert KEY not in str(caught.value)
