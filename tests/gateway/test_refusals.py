"""What is not valid is refused with a 4xx that says why; nothing a client sends is a 500."""

from __future__ import annotations

import json

import httpx
import pytest

from aiki_sdk._errors import ERRORS_BY_CODE
from tests.gateway.serving import raw, served

START = {"workflow": "greet", "input": {"name": "Ada"}}


def _nested(depth: int) -> str:
    return '{"workflow":"greet","input":{"name":' + "[" * depth + "]" * depth + "}}"


MALFORMED: dict[str, tuple[str | bytes, str]] = {
    "cut off": ('{"workflow": "greet"', "not a JSON document"),
    "not an object": ("[1]", "send a JSON object, not an array"),
    "null": ("null", "send a JSON object, not null"),
    "not UTF-8": (b'{"workflow":"\xff"}', "not a JSON document"),
    "NaN": ('{"workflow":"greet","input":{"name":NaN}}', "NaN is not a JSON number"),
    "infinity": ('{"workflow":"greet","input":{"name":1e999}}', "beyond what a double can hold"),
    "a number of 5,000 digits": (
        '{"workflow":"greet","input":{"name":' + "9" * 5000 + "}}",
        "not a JSON document",
    ),
    "a member twice": ('{"workflow":"a","workflow":"b","input":{}}', "'workflow' twice"),
    "NUL": ('{"workflow":"greet","input":{"name":"a\\u0000"}}', "NUL"),
    "a lone surrogate": ('{"workflow":"greet","input":{"name":"\\ud800"}}', "surrogate"),
    "too deep": (_nested(100), "nested deeper"),
    "very deep": (_nested(100_000), "deeper"),
    "an unknown member": (json.dumps({**START, "workflowx": 1}), "'workflowx', which is not known"),
    "a wrong type": (json.dumps({**START, "labels": [1]}), "labels"),
    "a wrong word": (json.dumps({**START, "priority": "urgent"}), "priority"),
    "a wrong time": (json.dumps({**START, "at": "tomorrow"}), "at"),
    "no workflow": (json.dumps({"input": {}}), "workflow"),
    "an input that does not fit": (json.dumps({**START, "input": {"name": 1}}), "name"),
    "a boolean for a number": (json.dumps({**START, "delay_s": True}), "delay_s"),
    "a name with a NUL": (json.dumps({**START, "workflow": "a b"}), "not valid"),
}


async def test_malformed_bodies_are_refused_with_the_reason() -> None:
    async with served() as server:
        for what, (body, reason) in MALFORMED.items():
            content = body if isinstance(body, bytes) else body.encode()
            answer = await server.http.post(
                "/v1/runs", content=content, headers={"Content-Type": "application/json"}
            )
            problem = answer.json()
            assert answer.status_code == 400, (what, answer.text)
            assert reason in problem["detail"], (what, problem["detail"])
            assert problem["code"] in {"invalid-request", "payload"}
            assert problem["type"].endswith(f"/{problem['code']}")
            assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/runs?limit=0", "limit"),
        ("/v1/runs?limit=501", "limit"),
        ("/v1/runs?limit=1e2", "limit"),
        ("/v1/runs?limit=99999999999999999999999999", "limit"),
        ("/v1/runs?limit=1&limit=2", "2 times"),
        ("/v1/runs?status=done", "status"),
        ("/v1/runs?created_after=yesterday", "created_after"),
        ("/v1/runs?created_after=2026-01-01T00:00:00", "time zone"),
        ("/v1/runs?label=novalue", "name:value"),
        ("/v1/runs?label=a:1&label=a:2", "two values"),
        ("/v1/runs?cursor=%00", "NUL"),
        ("/v1/runs?cursor=nope", "cursor"),
        ("/v1/runs?workflow=%ff", "query is not valid"),
        ("/v1/runs?offset=3", "'offset' is not known"),
        ("/v1/runs/find?workflow=greet", "'reference_id' is missing"),
        ("/v1/runs/x/result?wait=61", "wait"),
        ("/v1/runs/x/result?wait=nan", "wait"),
        ("/v1/runs/x/result?wait=-1", "wait"),
        ("/v1/runs?" + "&".join(f"label=l{n}:1" for n in range(201)), "query"),
    ],
)
async def test_queries_that_are_not_valid_are_refused(path: str, reason: str) -> None:
    async with served() as server:
        answer = await server.http.get(path)
        assert answer.status_code == 400, answer.text
        assert reason in answer.json()["detail"]


async def test_unknown_things_are_404_whatever_their_names_are_made_of() -> None:
    async with served() as server:
        paths = ("/v1/runs/none", "/v1/runs/%00", "/v1/runs/" + "x" * 300, "/v1/runs/%ff", "/v1")
        for path in (*paths, "/v1/nope", "/nope", "/v1/runs/none/journal"):
            answer = await server.http.get(path)
            assert answer.status_code == 404, path
            assert answer.json()["code"] == "not-found", path
        for path in ("/v1/runs/none/events/go", "/v1/runs/none/cancel"):
            assert (await server.http.post(path, json={})).status_code == 404
        run_id = await server.start()
        event = await server.http.post(f"/v1/runs/{run_id}/events/stop", json={})
        assert (event.status_code, event.json()["code"]) == (404, "unknown-event")


@pytest.mark.parametrize(
    ("path", "absent"),
    [("/", "dashboard"), ("/v1/schedules", "schedules"), ("/v1/schedules/s-1/pause", "schedules"),
     ("/v1/keys", "keys")],
)  # fmt: skip
async def test_what_this_version_lacks_is_named(path: str, absent: str) -> None:
    async with served() as server:
        for answer in (await server.http.get(path), await server.http.post(path, json={})):
            assert answer.status_code == 404
            assert absent in answer.json()["detail"], path
            assert "this version" in answer.json()["detail"], path


async def test_what_is_no_json_a_body_too_many_or_another_method_is_refused() -> None:
    async with served() as server:
        http = server.http
        form = await http.post("/v1/runs", data={"workflow": "greet"})
        assert form.status_code == 415
        absent = await http.post("/v1/runs")
        assert absent.status_code == 400
        extra = await http.request("GET", "/v1/runs", content=b"{}")
        assert extra.status_code == 400
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            answer = await http.request(method, "/v1/runs")
            assert answer.status_code == 405, method
            assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_an_error_rebuilds_as_the_exception_that_it_was() -> None:
    async with served() as server:
        problem = (await server.http.get("/v1/runs/none")).json()
        cls = ERRORS_BY_CODE[problem["code"]]
        error = cls.from_wire(problem["detail"], problem["details"])
        assert error.details == {"run_id": "none"}


async def test_a_bug_is_a_500_that_tells_nothing_of_the_inside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as server:

        async def broken(*_args: object) -> None:
            raise RuntimeError("the secret is 1234")

        monkeypatch.setattr(type(server.runtime.port_for("default")), "workflows", broken)
        answer = await server.http.get("/v1/workflows")

        assert answer.status_code == 500
        assert answer.json()["code"] == "error"
        assert "1234" not in answer.text
        assert "the secret" in caplog.text


POST = b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
)

RAW: dict[str, tuple[bytes, bytes]] = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    "a line break in a header": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", b"400"),
    "a length and chunks": (POST + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n", b"400"),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", b"400"),
    "a chunk that is none": (POST + CHUNKED + b"\r\nzz\r\n", b"400"),
    "HTTP/2 in clear text": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"40"),
    "an upgrade to HTTP/2": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"\r\n",
        b"200",
    ),
}


@pytest.mark.parametrize("what", RAW)
async def test_what_is_no_proper_http_is_refused(what: str) -> None:
    data, status = RAW[what]
    async with served() as server:
        answer = await raw(server.bound, data)
        assert answer.startswith(b"HTTP/1.1 " + status), (what, answer[:200])
        assert (await server.http.get("/healthz")).status_code == 200


async def test_the_answers_headers_keep_browsers_and_caches_from_mistakes() -> None:
    async with served() as server:
        answer: httpx.Response = await server.http.get("/v1/runs")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
