"""The control socket: how other processes of this user give commands to a running runtime.

A Unix domain socket beside the database file, mode 0600: local only, and only for who may read and
write there anyway. It speaks `ClientPort` in lines of JSON (`_wire`), so that whatever a client in
the runtime's process can do, a command can.

Invariant: the runtime owns the database when this starts, so that a socket which is already there
is left over from a runtime that has died, and is replaced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, Never, cast

import trio
from attrs import define, field

from aiki_actors.kernel import Actor, ActorContext, ChildSpec, StopReason
from aiki_sdk import AikiError, InvalidRequest, JsonValue, Unavailable
from aiki_sdk.protocol import (
    ClientPort,
    ControlRequest,
    ForkRequest,
    RunQuery,
    SendRequest,
    StartRequest,
    TreeNode,
    from_wire,
    to_wire,
)
from aiki_trio._gateway_engine import wire_node
from aiki_trio._runtime import Runtime

from ._wire import Lines

Params = Mapping[str, JsonValue]
Method = Callable[[ClientPort, Params], Awaitable[object]]

CONNECTIONS_MAX: Final = 64
"""Commands at the same time; one more is told to try again."""

PATH_BYTES_MAX: Final = 104
"""What every system allows for the path of a Unix domain socket, less its end mark."""


def control_path(database: Path) -> Path:
    """Return where the control socket of a database is."""
    return Path(f"{os.path.realpath(database)}-control")


async def start_control(runtime: Runtime, database: Path) -> None:
    """Serve the control socket in a runtime, under its root supervisor, until it stops.

    Returns when commands can connect.

    Raises:
        InvalidRequest: the path is too long for a socket, or another file is there.
    """
    path = control_path(database)
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        message = (
            f"control socket {str(path)!r} is not possible: its path is longer than "
            f"{PATH_BYTES_MAX} bytes; put the database where the path is shorter"
        )
        raise InvalidRequest(message)
    _remove_left_over(path)
    listening = trio.Event()
    runtime.system.root.start_child(
        ChildSpec(
            "control",
            lambda: ControlActor(
                path, runtime.port_for, lambda: wire_node(runtime.tree()), listening
            ),
        )
    )
    await listening.wait()


# --- What can be asked ----------------------------------------------------------------------------


def _text(params: Params, name: str) -> str:
    return from_wire(params.get(name), str, name)


def _wait_s(params: Params) -> float | None:
    value = params.get("wait_s")
    return None if value is None else from_wire(value, float, "wait_s")


METHODS: Final[Mapping[str, Method]] = {
    "start": lambda port, p: port.start(from_wire(p.get("request"), StartRequest, "request")),
    "get": lambda port, p: port.get(_text(p, "run_id")),
    "find": lambda port, p: port.find(_text(p, "workflow"), _text(p, "reference_id")),
    "list": lambda port, p: port.list(from_wire(p.get("query"), RunQuery, "query")),
    "count": lambda port, p: port.count(from_wire(p.get("query"), RunQuery, "query")),
    "journal": lambda port, p: port.journal(
        _text(p, "run_id"),
        after=from_wire(p.get("after"), int, "after"),
        limit=from_wire(p.get("limit"), int, "limit"),
    ),
    "result": lambda port, p: port.result(_text(p, "run_id"), wait_s=_wait_s(p)),
    "send": lambda port, p: port.send(
        _text(p, "run_id"), from_wire(p.get("request"), SendRequest, "request")
    ),
    "control": lambda port, p: port.control(
        _text(p, "run_id"), from_wire(p.get("request"), ControlRequest, "request")
    ),
    "fork": lambda port, p: port.fork(
        _text(p, "run_id"), from_wire(p.get("request"), ForkRequest, "request")
    ),
    "workflows": lambda port, _p: port.workflows(),
    "health": lambda port, _p: port.health(),
}
UPDATES: Final = "updates"
TREE: Final = "tree"


@define(eq=False)
class ControlActor(Actor[Never]):
    """Listens on the socket and answers."""

    kind: ClassVar[str] = "control"
    path: Path
    port_for: Callable[[str], ClientPort]
    tree: Callable[[], TreeNode]
    listening: trio.Event
    answered: int = field(default=0, init=False)
    _listener: trio.SocketListener = field(init=False)
    _open: int = field(default=0, init=False)

    async def started(self, context: ActorContext[Never]) -> None:
        """Listen before anything else is served, so that who is told the path can connect."""
        self._listener = await _listen(self.path)
        context.start_soon(trio.serve_listeners, self._serve, [self._listener])
        self.listening.set()

    async def stopping(self, reason: StopReason) -> None:  # noqa: ARG002
        """Take no more connections, and leave no file behind."""
        self.path.unlink(missing_ok=True)
        await self._listener.aclose()

    def describe(self) -> str:
        """Return how many requests were answered."""
        return f"{self.answered} answered, {self._open} open"

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Answer the one request of a connection, for as long as the other side is there."""
        lines = Lines(stream)
        self._open += 1
        try:
            async with stream, trio.open_nursery() as nursery:
                try:
                    await self._answer_first(lines, nursery)
                except Unavailable:
                    # The other side has gone; there is nobody to tell.
                    return
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            self._open -= 1

    async def _answer_first(self, lines: Lines, nursery: trio.Nursery) -> None:
        try:
            if self._open > CONNECTIONS_MAX:
                message = f"more than {CONNECTIONS_MAX} commands wait at once; try again"
                raise Unavailable(message)
            request = await lines.receive()
        except AikiError as error:
            await lines.send(_problem(error))
            return
        nursery.start_soon(_cancel_when_gone, lines.stream, nursery.cancel_scope)
        try:
            await self._answer(lines, request)
        except AikiError as error:
            await lines.send(_problem(error))
        self.answered += 1

    async def _answer(self, lines: Lines, request: JsonValue) -> None:
        if not isinstance(request, dict) or not isinstance(request.get("params"), dict):
            message = f"request {request!r} is not valid: pass namespace, method and params"
            raise InvalidRequest(message)
        method = _text(request, "method")
        params = cast("Params", request["params"])
        port = self.port_for(_text(request, "namespace"))
        if method == UPDATES:
            await _stream(lines, port, params)
        elif method == TREE:
            await lines.send({"result": to_wire(self.tree())})
        elif method in METHODS:
            await lines.send({"result": to_wire(await METHODS[method](port, params))})
        else:
            there = ", ".join((*METHODS, TREE, UPDATES))
            message = f"method={method!r} is not valid: use one of {there}"
            raise InvalidRequest(message)


async def _stream(lines: Lines, port: ClientPort, params: Params) -> None:
    after = from_wire(params.get("after"), int, "after")
    stream = port.updates(_text(params, "run_id"), after=after, wait_s=_wait_s(params))
    async with stream as updates:
        async for update in updates:
            await lines.send({"item": to_wire(update)})
    await lines.send({"end": True})


async def _cancel_when_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Notice that the other side closed: it sends nothing after its request."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.receive_some(1)
    scope.cancel()


def _problem(error: AikiError) -> JsonValue:
    return {"error": {"code": error.code, "message": error.message, "details": error.details}}


def _remove_left_over(path: Path) -> None:
    """Remove the socket of a runtime that has died."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            message = f"control socket {str(path)!r} is not possible: another file is there"
            raise InvalidRequest(message)
        path.unlink()
    except FileNotFoundError:
        # The common case: the runtime before this one ended properly.
        return


async def _listen(path: Path) -> trio.SocketListener:
    _remove_left_over(path)
    listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    # The mode is set while the file is made, so that there is no moment in which others may enter.
    before = os.umask(0o177)
    try:
        await listening.bind(str(path))
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    listening.listen(CONNECTIONS_MAX)
    return trio.SocketListener(listening)
