"""A server without a socket: the routes of the HTTP API over a `FakePort`, and faults on the way.

A fault is planned for one request by its path; it happens before or after the request was carried
out, so that tests tell what may have happened from what cannot have.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx
from attrs import define, evolve, field

from aiki_sdk import AikiError, Client, SyncClient, input_hash
from aiki_sdk._json import JsonValue, dumps, loads
from aiki_sdk.client._stepping import run_plain
from aiki_sdk.http import AsyncExchange, HttpPort, HttpSettings, SyncExchange
from aiki_sdk.protocol import (
    ControlCommand,
    ControlRequest,
    ForkRequest,
    Problem,
    RunQuery,
    RunStatus,
    SendRequest,
    StartRequest,
    from_wire,
    to_wire,
)
from tests.unit.sdk.fake_port import FakePort

URL = "http://aiki.test:9850"
QUICK = HttpSettings(backoff_s=0.1, backoff_max_s=1.0, reconnect_s=20.0)

STATUSES = {
    "not-found": 404,
    "reference-conflict": 409,
    "illegal-transition": 409,
    "run-ended": 409,
    "unauthorized": 401,
    "unavailable": 503,
    "limit-exceeded": 413,
}


@define
class Fault:
    """What goes wrong with one request.

    Attributes:
        path: what its path ends with.
        error: what is raised on the client's side; None: `answer` is answered.
        answer: what is answered instead.
        after: whether the request was carried out before that.
    """

    path: str
    error: Callable[[str], Exception] | None = None
    answer: httpx.Response | None = None
    after: bool = False


@define(eq=False)
class FakeServer:
    """See the module.

    Attributes:
        requests: method and path of every request that arrived.
        faults: what goes wrong, each once, in this order.
        keys: every `Idempotency-Key` that came, in order.
        stream_cut: streams are ended with this reason after so many updates.
        waits: every `wait` that a result was asked with.
    """

    port: FakePort = field(factory=FakePort)
    requests: list[str] = field(factory=lambda: list[str]())
    seen: list[httpx.Request] = field(factory=lambda: list[httpx.Request]())
    faults: list[Fault] = field(factory=lambda: list[Fault]())
    keys: list[str] = field(factory=lambda: list[str]())
    waits: list[str] = field(factory=lambda: list[str]())
    stream_cut: tuple[int, str] | None = None

    def client_port(self, settings: HttpSettings = QUICK, **kwargs: Any) -> HttpPort:
        """Return a port to this server, under Trio or asyncio."""
        exchange = AsyncExchange(settings, httpx.MockTransport(self.handle))
        return HttpPort.to(URL, settings=settings, exchange=exchange, **kwargs)

    def planned(self, *faults: Fault) -> FakeServer:
        """Plan faults."""
        self.faults.extend(faults)
        return self

    def plain_client(self, settings: HttpSettings = QUICK, **kwargs: Any) -> SyncClient:
        """Return a client of this server without a loop."""
        exchange = SyncExchange(settings, httpx.MockTransport(self.handle_plain))
        return SyncClient(URL, http=settings, exchange=exchange, **kwargs)

    def handle_plain(self, request: httpx.Request) -> httpx.Response:
        """Answer a request in a plain call; nothing is waited for."""
        response = run_plain(self.handle(request))
        if isinstance(response.stream, httpx.ByteStream):
            return response
        return httpx.Response(response.status_code, content=_Pieces(response.stream))

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        path = request.url.path
        self.requests.append(f"{request.method} {path}")
        self.seen.append(request)
        fault = self._fault(path)
        if fault is not None and not fault.after:
            return self._fail(fault)
        try:
            response = await self._route(request)
        except AikiError as error:
            response = problem(error)
        return response if fault is None else self._fail(fault)

    def _fault(self, path: str) -> Fault | None:
        for number, fault in enumerate(self.faults):
            if path.endswith(fault.path):
                return self.faults.pop(number)
        return None

    def _fail(self, fault: Fault) -> httpx.Response:
        if fault.error is not None:
            raise fault.error("planned")
        assert fault.answer is not None
        return fault.answer

    async def _route(self, request: httpx.Request) -> httpx.Response:
        # As a server does it: split first, then unquote each segment.
        path = request.url.raw_path.decode().partition("?")[0]
        segments = [httpx.URL(f"/{part}").path[1:] for part in path.split("/")[2:]]
        body: Any = loads(request.content) if request.content else None
        query = request.url.params
        match request.method, *segments:
            case "POST", "runs":
                made = named(fill(body), self._key(request))
                return answer(await self.port.start(made), 201)
            case "POST", "runs", "batch":
                starts = [fill(run) for run in body["runs"]]
                results = await self.port.start_many(starts)
                return answer({"results": [item("result", result) for result in results]})
            case "POST", "runs", "bulk":
                return await self._bulk(body)
            case "GET", "runs":
                return answer(await self.port.list(run_query(query)))
            case "GET", "runs", "count":
                return answer({"count": await self.port.count(run_query(query))})
            case "GET", "runs", "find":
                return answer(await self.port.find(query["workflow"], query["reference_id"]))
            case "GET", "workflows":
                return answer({"workflows": list(await self.port.workflows())})
            case "GET", "health":
                return answer(await self.port.health())
            case method, "runs", run_id, *rest:
                return await self._run(request, method, run_id, rest, body)
            case _:
                return httpx.Response(404, text="no such route")

    async def _run(
        self, request: httpx.Request, method: str, run_id: str, rest: list[str], body: Any
    ) -> httpx.Response:
        query = request.url.params
        match method, *rest:
            case ["GET"]:
                return answer(await self.port.get(run_id))
            case "GET", "journal":
                after, limit = int(query["after"]), int(query["limit"])
                entries = await self.port.journal(run_id, after=after, limit=limit)
                return answer({"entries": list(entries)})
            case "GET", "result":
                self.waits.append(query["wait"])
                outcome = await self.port.result(run_id, wait_s=float(query["wait"]))
                if outcome is None:
                    return answer({"status": "running"}, 202)
                return answer(outcome)
            case "GET", "stream":
                await self.port.get(run_id)
                stream = self._stream(run_id, int(query["after"]))
                return httpx.Response(200, content=stream)
            case "POST", ("events" | "questions") as sort, name:
                key = self._key(request)
                reference = body.get("reference_id") or (key and f"idempotency:{key}")
                sent = SendRequest(
                    event=name,
                    data=body.get("data"),
                    reference_id=reference,
                    question=sort == "questions",
                )
                return answer(await self.port.send(run_id, sent))
            case "POST", "fork":
                forked = from_wire(body, ForkRequest, "body")
                return answer(await self.port.fork(run_id, forked), 201)
            case "POST", command:
                control = ControlRequest(command=ControlCommand(command), **body)
                await self.port.control(run_id, control)
                return httpx.Response(204)
            case _:
                return httpx.Response(404, text="no such route")

    async def _bulk(self, body: Any) -> httpx.Response:
        run_ids = body["run_ids"]
        results: list[Any] = []
        if "event" in body:
            sent = from_wire(body["event"], SendRequest, "event")
            for run_id, receipt in zip(
                run_ids, await self.port.send_many(run_ids, sent), strict=True
            ):
                results.append({"run_id": run_id, **item("receipt", receipt)})
        else:
            control = from_wire(body["control"], ControlRequest, "control")
            for run_id, done in zip(
                run_ids, await self.port.control_many(run_ids, control), strict=True
            ):
                results.append({"run_id": run_id, **item("ok", True if done is None else done)})
        return answer({"results": results, "cursor": None})

    async def _stream(self, run_id: str, after: int) -> AsyncGenerator[bytes]:
        given = 0
        yield b": hello\n\n"
        async with self.port.updates(run_id, after=after) as updates:
            async for update in updates:
                yield event("update", to_wire(update), update.seq)
                after, given = update.seq, given + 1
                if self.stream_cut is not None and given == self.stream_cut[0]:
                    if self.stream_cut[1]:
                        yield event("end", {"reason": self.stream_cut[1], "after": after})
                    return
        yield event("end", {"reason": "ended", "after": after})

    def _key(self, request: httpx.Request) -> str | None:
        key: str | None = request.headers.get("idempotency-key")
        if key is not None:
            self.keys.append(key)
        return key


@define(eq=False)
class _Pieces(httpx.SyncByteStream):
    """An async body, read in plain calls."""

    _inner: Any

    def __iter__(self) -> Iterator[bytes]:
        pieces = aiter(self._inner)
        while True:
            try:
                yield run_plain(anext(pieces))
            except StopAsyncIteration:
                return


def fill(body: dict[str, JsonValue]) -> StartRequest:
    """Read a start; a missing hash is computed."""
    filled = {"input_hash": input_hash(body["input"]), **body}
    return from_wire(filled, StartRequest, "body")


def named(request: StartRequest, key: str | None) -> StartRequest:
    """Use an idempotency key as the reference id if there is none."""
    if key is None or request.reference_id is not None:
        return request
    return evolve(request, reference_id=f"idempotency:{key}")


def run_query(query: httpx.QueryParams) -> RunQuery:
    """Read the filters of a list."""
    times = {
        name: datetime.fromisoformat(query[name])
        for name in ("created_after", "created_before")
        if name in query
    }
    plain = ("workflow", "version", "reference_id", "parent_id", "query", "cursor")
    given: dict[str, Any] = {name: query[name] for name in plain if name in query}
    given.update(times)
    labels = dict(label.split(":", 1) for label in query.get_list("label"))
    return RunQuery(
        status=tuple(map(RunStatus, query.get_list("status"))),
        labels=labels,
        limit=int(query.get("limit", "50")),
        **given,
    )


def item(name: str, result: object) -> dict[str, Any]:
    """Return what is answered for one of many."""
    if isinstance(result, Problem):
        return {"error": problem_body(result.to_error())}
    return {name: result}


def answer(value: object, status: int = 200) -> httpx.Response:
    """Answer with a wire value, or with an object of some."""
    return httpx.Response(status, content=dumps(wire(value)))


def wire(value: object) -> JsonValue:
    """Return anything as JSON."""
    if isinstance(value, Mapping):
        return {name: wire(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [wire(member) for member in value]
    return to_wire(value)


def problem_body(error: AikiError) -> dict[str, JsonValue]:
    """Return an error as a problem document."""
    status = STATUSES.get(error.code, 400)
    return {
        "type": f"https://aiki.invalid/errors/{error.code}",
        "title": error.code,
        "status": status,
        "detail": error.message,
        "code": error.code,
        "details": error.details,
    }


def problem(error: AikiError, **headers: str) -> httpx.Response:
    """Answer with an error."""
    body = problem_body(error)
    return httpx.Response(
        STATUSES.get(error.code, 400),
        content=dumps(body),
        headers={"content-type": "application/problem+json", **headers},
    )


def event(kind: str, data: JsonValue, seq: int | None = None) -> bytes:
    """Write a server-sent event."""
    number = b"" if seq is None else f"id: {seq}\n".encode()
    return number + b"event: " + kind.encode() + b"\ndata: " + dumps(data) + b"\n\n"


def client_over(port: FakePort, way: str) -> Client:
    """Return a client that speaks to a port directly (`here`) or through HTTP (`http`)."""
    return Client(port) if way == "here" else Client(FakeServer(port).client_port())
