"""The Quart application: requests of the route table go to the gate, all others to Quart's routes.

Quart takes more time for a request than all the rest together, for things that the API does not
use (contexts, signals, sessions, a form parser), so that the API's requests leave it at the ASGI
border, the place that Quart names for it. Websockets, and pages such as the dashboard, are Quart's.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Final, Protocol, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Response, Websocket, has_request_context, request, websocket
from quart_trio import QuartTrio
from typing_extensions import override
from werkzeug.exceptions import HTTPException

from aiki_sdk import AikiError, NotFound

from ._engine import Engine
from ._gate import Gate, problem_reply
from ._live_socket import JsonSocket, serve_live_socket
from ._problems import HttpError, no_such_path, refused
from ._routes import Access

LOGGER: Final = logging.getLogger("aiki.gateway")

API_PREFIX: Final = "/v1/"


class _WorkerSocket(Protocol):
    """What the module of worker sessions offers."""

    serve_worker: Callable[[Engine, Websocket, trio.Event], Awaitable[None]]


class GatewayApp(QuartTrio):
    """Quart, with the gate in front of it."""

    gate: Gate

    @override
    async def asgi_app(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] == "http" and (
            scope["path"].startswith(API_PREFIX) or self.gate.knows(scope["path"])
        ):
            await self.gate.serve(scope, receive, send)
        else:
            await super().asgi_app(scope, receive, send)

    @override
    def log_exception(
        self,
        exception_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None],
    ) -> None:
        LOGGER.error("a request failed because of a bug", exc_info=exception_info)


def make_app(gate: Gate) -> GatewayApp:
    """Return the application around a gate."""
    app = GatewayApp("aiki_gateway", static_folder=None, template_folder=None)
    app.gate = gate
    settings = gate.settings
    app.config["MAX_CONTENT_LENGTH"] = settings.body_bytes_max
    app.config["BODY_TIMEOUT"] = settings.body_timeout_s
    app.config["RESPONSE_TIMEOUT"] = settings.response_timeout_s
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(AikiError, _aiki_problem)
    app.add_websocket("/v1/stream", "live", partial(_live_socket, gate))
    app.add_websocket("/v1/worker", "worker", partial(_worker_socket, gate))
    return app


def _http_problem(error: HTTPException) -> Response:
    if error.code == 404:
        return _response(no_such_path(request.path if has_request_context() else websocket.path))
    if error.code is None or error.code >= 500:
        return _response(AikiError("the server failed; its log says more"))
    return _response(refused(error.code, error.description or error.name))


def _aiki_problem(error: AikiError) -> Response:
    return _response(error)


def _response(error: HttpError | AikiError) -> Response:
    reply = problem_reply(error)
    return Response(reply.body, reply.status, dict(reply.headers), content_type=reply.content_type)


def _admit(gate: Gate) -> tuple[Websocket, str]:
    """Check a websocket before it is accepted; return it, and the namespace that it is about.

    Raises:
        Unauthorized: its key is missing or wrong.
        HttpError: its origin is not allowed, or there are too many.
    """
    socket = cast("Websocket", websocket._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001
    headers = {name.lower(): value for name, value in socket.headers.items()}
    gate.guard.check(headers, Access.KEY)
    gate.check_streams()
    named = headers.get("aiki-namespace") or socket.args.get("namespace")
    return socket, named or "default"


async def _live_socket(gate: Gate) -> Response | None:
    try:
        socket, namespace = _admit(gate)
        gate.engine.client_port(namespace)
    except (HttpError, AikiError) as error:
        return _response(error)
    with gate.counted_stream():
        await serve_live_socket(gate, cast("JsonSocket", socket), namespace)
    return None


async def _worker_socket(gate: Gate) -> Response | None:
    """Serve a worker's session; the module that does is another's, and may not be installed."""
    module = f"{__package__}._worker_socket"
    if importlib.util.find_spec(module) is None:
        return _response(NotFound("this server takes no workers"))
    try:
        socket, _ = _admit(gate)
    except (HttpError, AikiError) as error:
        return _response(error)
    worker_socket = cast("_WorkerSocket", importlib.import_module(module))
    with gate.counted_stream():
        await worker_socket.serve_worker(gate.engine, socket, gate.closing)
    return None
