"""A runtime that is served on a loopback port, and clients that check what they are answered."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
import trio
from attrs import frozen

from aiki_gateway import Bound, GatewaySettings
from aiki_gateway._openapi import document
from aiki_gateway._table import ROUTES
from aiki_sdk import Event, Run, task, workflow
from aiki_trio import open_runtime
from aiki_trio._runtime import Runtime

go = Event("go", str)
slashed = Event("orders/paid", int)


@task
async def greeting(name: str) -> str:
    return f"hello {name}"


@workflow(name="greet", version="1.0.0")
async def greet(run: Run, name: str, excited: bool = False) -> str:
    return await greeting(name) + ("!" if excited else "")


@workflow(name="wait", version="1.0.0", events=[go, slashed])
async def wait_for_go(run: Run, name: str = "nobody") -> str:
    await run.publish("state", "waiting")
    return await run.wait(go)


@workflow(name="fail", version="1.0.0")
async def fail(run: Run) -> None:
    raise ValueError("no")


@workflow(name="sleep", version="1.0.0")
async def sleep(run: Run) -> None:
    await run.sleep("nap", hours=1)


@frozen
class Served:
    """A running server and a client of it whose every answer is checked against the OpenAPI."""

    runtime: Runtime
    bound: Bound
    http: httpx.AsyncClient

    async def start(self, workflow_name: str = "wait", **input_: object) -> str:
        """Start a run and return its id."""
        body = {"workflow": workflow_name, "input": input_}
        answer = await self.http.post("/v1/runs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["run_id"])

    async def ended(self, run_id: str) -> dict[str, Any]:
        """Wait for a run's end and return its outcome."""
        answer = await self.http.get(f"/v1/runs/{run_id}/result", params={"wait": 20})
        assert answer.status_code == 200, answer.text
        outcome: dict[str, Any] = answer.json()
        return outcome

    @property
    def gateway(self) -> str:
        """What the gateway says about itself."""
        return self.runtime.tree().children[-1].describe

    async def parked(self, run_id: str) -> None:
        """Wait until a run waits for its event."""
        async with self.runtime.port_for("default").updates(run_id, after=0) as updates:
            async for update in updates:
                if update.kind == "run-parked":
                    return


@asynccontextmanager
async def served(settings: GatewaySettings | None = None) -> AsyncGenerator[Served, None]:
    """Serve a runtime in memory on a port of the system's choice."""
    async with open_runtime("memory://", workflows=[greet, wait_for_go, fail, sleep]) as runtime:
        bound = await runtime.serve(port=0, settings=settings)
        hooks: Any = {"response": [check_answer]}
        async with httpx.AsyncClient(base_url=bound.url, event_hooks=hooks, timeout=30) as client:
            yield Served(runtime, bound, client)


# --- Answers, checked against the document --------------------------------------------------------


@cache
def openapi() -> dict[str, Any]:
    """Return the document."""
    found: dict[str, Any] = json.loads(json.dumps(document(ROUTES)))
    return found


@cache
def _operations() -> list[tuple[re.Pattern[str], str, str]]:
    found: list[tuple[re.Pattern[str], str, str]] = []
    for path, methods in openapi()["paths"].items():
        pattern = re.sub(r"\\\{name\\\}", ".+", re.escape(path))
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", pattern)
        found.extend((re.compile(pattern), method, path) for method in methods)
    return sorted(found, key=lambda one: "{" in one[2])


def operation_of(method: str, path: str) -> tuple[str, str] | None:
    """Return the document's path and method of a request; None: it has none."""
    for pattern, known, template in _operations():
        if known == method.lower().replace("head", "get") and pattern.fullmatch(path):
            return template, known
    return None


@cache
def _validator(template: str, method: str, status: str, content_type: str) -> Any:
    response = openapi()["paths"][template][method]["responses"][status]
    schema = response["content"][content_type]["schema"]
    whole = {"components": openapi()["components"], **schema}
    return jsonschema_rs.validator_for(whole, validate_formats=True)


async def check_answer(answer: httpx.Response) -> None:
    """Fail if an answer is not one that the document has for the request."""
    request = answer.request
    found = operation_of(request.method, request.url.path)
    if found is None:
        allowed = {403, 404, 405, 429, *([204] if request.method == "OPTIONS" else [])}
        assert answer.status_code in allowed, answer.status_code
        return
    template, method = found
    responses = openapi()["paths"][template][method]["responses"]
    status = str(answer.status_code)
    assert status in responses, f"{method} {template} answered {status}, which it does not declare"
    if answer.headers.get("content-type", "").startswith("text/"):
        return
    if request.method == "HEAD" or "content" not in responses[status]:
        return
    await answer.aread()
    content_type = answer.headers["content-type"].partition(";")[0]
    validator = _validator(template, method, status, content_type)
    problems = [str(error) for error in validator.iter_errors(answer.json())]
    assert not problems, f"{method} {template} {status}: {problems}"


async def until(true: Callable[[], bool], *, timeout_s: float = 5) -> None:
    """Wait until something is so that says nothing when it becomes so: a server's own state."""
    with trio.fail_after(timeout_s):
        while not true():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def raw(bound: Bound, data: bytes, *, timeout_s: float = 10) -> bytes:
    """Send bytes and return all that comes back until the server closes."""
    with trio.fail_after(timeout_s):
        stream = await trio.open_tcp_stream(bound.host, bound.port)
        async with stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(data)
            return await rest_of(stream)


async def rest_of(stream: trio.SocketStream) -> bytes:
    """Read until the server closes."""
    parts = bytearray()
    with suppress(trio.BrokenResourceError):
        async for part in stream:
            parts += part
    return bytes(parts)
