"""The way of a request: limits, keys, route, body, handler, answer. Plain ASGI, no framework.

Everything that can be wrong with a request ends here as a problem document; an exception that
leaves `serve` is a bug, and so is a 500.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

import trio
from attrs import define, field
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from aiki_sdk import AikiError, LimitExceeded, NotFound, Unavailable
from aiki_sdk._json import dumps
from aiki_sdk.protocol import Update, to_wire

from ._call import JSON, Call, Facts, Reply, Texts, read_query
from ._engine import Engine, Positioned
from ._guard import Guard
from ._http_out import HttpOut
from ._live import event_text, update_json
from ._metrics import Metrics
from ._openapi import document
from ._problems import (
    PROBLEM_JSON,
    HttpError,
    headers_of,
    no_such_path,
    problem_of,
    refused,
    too_many,
)
from ._rate import RateLimiter
from ._routes import Route, Router, StreamHandler
from ._settings import GatewaySettings
from ._strict_json import strict_json

LOGGER: Final = logging.getLogger("aiki.gateway")
_REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Aiki-Namespace",
)
NAMESPACE_DEFAULT: Final = "default"
PATH_PART_LENGTH_MAX: Final = 256


@define(eq=False)
class _Incoming:
    """What comes from the client of one request."""

    receive: ASGIReceiveCallable
    complete: bool = False

    async def body(self, bytes_max: int) -> bytes:
        """Return the whole body.

        Raises:
            HttpError: 413, it is longer than allowed.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] != "http.request":
                self.complete = True  # the client has gone; nobody reads what is answered
                raise refused(400, "the request ended before its body did")
            part = message.get("body", b"")
            size += len(part)
            if size > bytes_max:
                raise _body_too_large(bytes_max, size)
            parts.append(part)
            if not message.get("more_body", False):
                self.complete = True
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def gone(self) -> None:
        """Read and drop what comes until the client has gone."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                return


def _body_too_large(bytes_max: int, size: int) -> HttpError:
    fix = "send it in parts, or store it elsewhere and pass a reference"
    return HttpError(413, LimitExceeded("bytes in a request's body", bytes_max, size, fix))


@define(eq=False)
class Gate:
    """Answers requests. `closing` is set when the gateway stops: what waits, ends then."""

    engine: Engine
    settings: GatewaySettings
    router: Router
    guard: Guard
    metrics: Metrics
    rate: RateLimiter
    closing: trio.Event = field(factory=trio.Event)
    texts: Texts[Update] = field(factory=lambda: Texts[Update](update_json))
    events: Texts[Positioned] = field(factory=lambda: Texts[Positioned](event_text))
    _openapi: bytes = field(default=b"", init=False)

    def openapi(self) -> bytes:
        """Return the OpenAPI document of the route table, made when it is first asked for."""
        if not self._openapi:
            self._openapi = dumps(document(self.router.routes))
        return self._openapi

    def knows(self, path: str) -> bool:
        """Tell whether the route table has this path."""
        return bool(self.router.find(path)[0])

    async def serve(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answer one request."""
        started = trio.current_time()
        headers = headers_map(scope)
        out = HttpOut(send, scope["method"] == "HEAD", self._extra_headers(headers))
        incoming = _Incoming(receive)
        methods, path = self.router.find(scope["path"])
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = methods.get(method)
        if route is not None and route.stream is not None and scope["method"] == "HEAD":
            route = None  # it would be silent for ever
        self.metrics.in_flight += 1
        try:
            try:
                self._admit(scope)
                if route is None:
                    await out.reply(self._no_route(scope, headers, methods))
                else:
                    await self._answer(route, scope, headers, path, incoming, out)
            except (HttpError, AikiError) as error:
                await self._tell(out, incoming, error)
            except Exception as error:
                LOGGER.exception("%s %s failed", scope["method"], scope["path"])
                await self._tell(out, incoming, _hidden(error))
        finally:
            self.metrics.in_flight -= 1
            operation = "unknown" if route is None else route.operation
            self.metrics.answered(operation, out.status, trio.current_time() - started)

    def _extra_headers(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        origin = self.guard.allowed_origin(headers)
        if origin is None:
            return []
        return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]

    def _admit(self, scope: HTTPScope) -> None:
        """Count the request against its address.

        Raises:
            HttpError: 429, it made too many.
        """
        client = scope["client"]
        wait_s = self.rate.take(client[0] if client else "")
        if wait_s > 0:
            self.metrics.rate_limited += 1
            settings = self.settings
            raise too_many(
                "requests at once", settings.requests_burst, "wait and try again", wait_s=wait_s
            )

    def _no_route(
        self, scope: HTTPScope, headers: Mapping[str, str], methods: Mapping[str, Route]
    ) -> Reply:
        """Answer what a browser asks before it calls; refuse everything else.

        Raises:
            NotFound: there is no such path.
            HttpError: 405, the path has other methods.
        """
        if not methods:
            raise no_such_path(scope["path"])
        allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
        if scope["method"] == "OPTIONS" and self.guard.allowed_origin(headers) is not None:
            return Reply(
                204,
                headers=(
                    ("access-control-allow-methods", allowed),
                    ("access-control-allow-headers", ", ".join(_REQUEST_HEADERS)),
                    ("access-control-max-age", "600"),
                ),
            )
        message = f"method {scope['method'][:20]!r} is not allowed here; use {allowed}"
        raise refused(405, message, allow=allowed)

    async def _answer(
        self,
        route: Route,
        scope: HTTPScope,
        headers: Mapping[str, str],
        path: Mapping[str, str],
        incoming: _Incoming,
        out: HttpOut,
    ) -> None:
        self.guard.check(headers, route.access)
        _check_path(path)
        query = read_query(scope["query_string"], route.params)
        namespace = _namespace(headers, query)
        self.engine.client_port(namespace)  # refuses a name that none can have
        body = await self._body(route, headers, incoming)
        call = Call(
            self.engine,
            self.settings,
            Facts(self.metrics, self.closing, self.openapi, self.texts, self.events),
            namespace,
            path,
            query,
            headers,
            body=strict_json(body, "body") if body else None,
            has_body=bool(body),
            params=route.params,
        )
        if route.waits:
            await self._answer_waiting(route, call, incoming, out)
            return
        assert route.handler is not None, f"{route.operation} has a handler"
        with trio.move_on_after(self.settings.response_timeout_s) as timeout:
            await out.reply(await route.handler(call))
        if timeout.cancelled_caught and not out.opened:
            message = f"no answer within {self.settings.response_timeout_s} s; try again"
            raise Unavailable(message)

    async def _body(self, route: Route, headers: Mapping[str, str], incoming: _Incoming) -> bytes:
        """Read the body, if the route takes one.

        Raises:
            HttpError: 413, 408, 415: too large, too slow, not JSON.
        """
        bytes_max = self.settings.body_bytes_max
        announced = headers.get("content-length", "")
        # A number of so many digits need not be read.
        if len(announced) > 18 or (announced.isdecimal() and int(announced) > bytes_max):
            raise _body_too_large(bytes_max, int(announced[:18]))
        timeout_s = self.settings.body_timeout_s
        with trio.move_on_after(timeout_s) as timeout:
            body = await incoming.body(bytes_max)
            timeout.deadline = math.inf
            if body and route.body is None:
                raise refused(400, "this request takes no body; send none")
            if body and not _is_json(headers.get("content-type", "")):
                raise refused(415, "the body is not JSON by its Content-Type; use application/json")
            return body
        raise refused(408, f"the body did not arrive within {timeout_s} s; send it again")

    async def _answer_waiting(
        self, route: Route, call: Call, incoming: _Incoming, out: HttpOut
    ) -> None:
        """Answer what may take long; ends when the client goes away or the gateway stops."""
        async with trio.open_nursery() as nursery:
            watching = trio.CancelScope()

            async def watch() -> None:
                with watching:
                    await incoming.gone()
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            reply: Reply | None = None
            try:
                if route.stream is not None:
                    await self._stream(route.stream, call, out)
                else:
                    reply = await self._wait(route, call)
            except (HttpError, AikiError) as error:
                reply = problem_reply(error)
            except Exception as error:
                LOGGER.exception("%s failed", route.operation)
                reply = problem_reply(_hidden(error))
            # From here on it ends by itself: cancelling what is half sent would break the rest.
            watching.cancel()
            if reply is not None and not out.opened:
                await out.reply(reply)
            else:
                await out.end()

    async def _wait(self, route: Route, call: Call) -> Reply:
        """Return a long poll's answer.

        Raises:
            Unavailable: the gateway stops.
        """
        assert route.handler is not None, f"{route.operation} has a handler"
        found: list[Reply] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, self.closing.wait, nursery.cancel_scope)
            try:
                found.append(await route.handler(call))
            except (HttpError, AikiError) as error:
                found.append(problem_reply(error))
            nursery.cancel_scope.cancel()
        if found:
            return found[0]
        message = "the server is stopping; ask again"
        raise Unavailable(message)

    async def _stream(self, handler: StreamHandler, call: Call, out: HttpOut) -> None:
        self.check_streams()
        with self.counted_stream():
            await handler(call, out)

    def check_streams(self) -> None:
        """Refuse a live stream or websocket if there are too many.

        Raises:
            HttpError: 429, with the time to wait.
        """
        if self.metrics.streams >= self.settings.streams_max:
            raise too_many(
                "live streams", self.settings.streams_max, "close one, or try later", wait_s=5
            )

    @contextmanager
    def counted_stream(self) -> Generator[None]:
        """Count a live stream or websocket for as long as it is open."""
        self.metrics.streams += 1
        try:
            yield
        finally:
            self.metrics.streams -= 1

    async def _tell(self, out: HttpOut, incoming: _Incoming, error: HttpError | AikiError) -> None:
        """Send a problem, if nothing was sent yet."""
        if out.opened:
            return
        reply = problem_reply(error)
        if incoming.complete:
            await out.reply(reply)
            return
        # What the client still sends has to be taken, or the connection would wait for ever.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(incoming.gone)
            await out.reply(reply)
            nursery.cancel_scope.cancel()


async def _cancel_after(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()


def _hidden(error: Exception) -> AikiError:
    """Return what a client is told of a bug: that there is one."""
    return AikiError(f"the server failed ({type(error).__name__}); its log says more")


def problem_reply(error: HttpError | AikiError) -> Reply:
    """Return an error as an answer."""
    if isinstance(error, HttpError):
        problem = problem_of(error.error, error.status)
        headers = {**headers_of(problem), **error.headers}
    else:
        problem = problem_of(error)
        headers = headers_of(problem)
    return Reply(problem.status, dumps(to_wire(problem)), PROBLEM_JSON, tuple(headers.items()))


def headers_map(scope: HTTPScope) -> Mapping[str, str]:
    """Return a request's headers by name; of several of one name, joined with a comma."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _namespace(headers: Mapping[str, str], query: Mapping[str, list[str]]) -> str:
    """Return the namespace: by header, or by query where browsers can send no headers."""
    asked = query.get("namespace", [NAMESPACE_DEFAULT])[0]
    return headers.get("aiki-namespace", asked)


def _check_path(path: Mapping[str, str]) -> None:
    """Refuse names that nothing can have; databases would not take some of them.

    Raises:
        NotFound: naming the part.
    """
    for name, part in path.items():
        if len(part) > PATH_PART_LENGTH_MAX or not part.isprintable():
            message = f"{name} {part[:50]!r} does not exist: it is too long or not printable"
            raise NotFound(message)


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == JSON
