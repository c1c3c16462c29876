"""`WS /v1/stream`: many subscriptions in one websocket.

Messages are JSON text with a `type`. A client says `subscribe` and `unsubscribe`, each with an id
of its choice; the server says `snapshot`, `update`, `end` and `error`, with that id.

Invariant: nothing is kept for a client but what its subscriptions' buffers hold. Who does not read
is not written to for long: its subscriptions fall behind and are cut off, or its connection is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol

import trio
from attrs import define, field, frozen

from aiki_sdk import AikiError, InvalidRequest, JsonValue, LimitExceeded, NotFound
from aiki_sdk._json import dumps
from aiki_sdk.protocol import RunStatus, Update, to_wire

from ._call import Texts
from ._engine import LiveStream, Positioned, Snapshot, StreamFilter, StreamStart
from ._fields import checked, refuse_unknown
from ._gate import Gate
from ._live import TOO_SLOW, gather_s, snapshot_json
from ._problems import problem_of
from ._strict_json import strict_json

LOGGER: Final = logging.getLogger("aiki.gateway")

MISTAKES_MAX: Final = 100
"""Messages that could not be understood, before the websocket is closed: a broken client."""

RUNS_MAX: Final = 1_000
CURSORS_MAX: Final = 1_000
NAMES_MAX: Final = 20

GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008


@frozen(kw_only=True)
class Subscribe:
    """What a client asks for; `latest` travels as `from: "latest"`."""

    id: str
    runs: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    statuses: tuple[RunStatus, ...] = ()
    after: Mapping[str, int] = field(factory=lambda: dict[str, int]())
    position: str | None = None
    latest: bool = False

    def __attrs_post_init__(self) -> None:
        for what, count, maximum in (
            ("characters in a subscription's id", len(self.id), 100),
            ("runs of a subscription", len(self.runs), RUNS_MAX),
            ("workflows of a subscription", len(self.workflows), NAMES_MAX),
            ("cursors of a subscription", len(self.after), CURSORS_MAX),
        ):
            if count > maximum:
                raise LimitExceeded(what, maximum, count, "use fewer")


class JsonSocket(Protocol):
    """What is needed of a websocket."""

    async def accept(self) -> None:
        """Let the client in."""
        ...

    async def receive(self) -> str | bytes | None:
        """Wait for a message."""
        ...

    async def send(self, data: str) -> None:
        """Send a message."""
        ...

    async def close(self, code: int, reason: str = "") -> None:
        """Close it."""
        ...


async def serve_live_socket(gate: Gate, socket: JsonSocket, namespace: str) -> None:
    """Serve one websocket until either side closes it, or the gateway stops."""
    await socket.accept()
    live = _LiveSocket(gate, socket, namespace)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_after, gate.closing, nursery.cancel_scope)
        await live.serve()
        nursery.cancel_scope.cancel()
    if gate.closing.is_set():
        await live.say_goodbye()
    else:
        await socket.close(POLICY_VIOLATION, "too many messages could not be understood")


async def cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    """Cancel a scope when something has happened."""
    await event.wait()
    scope.cancel()


@define(eq=False)
class _LiveSocket:
    """One websocket."""

    _gate: Gate
    _socket: JsonSocket
    _namespace: str
    _open: dict[str, trio.CancelScope] = field(
        factory=lambda: dict[str, trio.CancelScope](), init=False
    )
    _ends: dict[str, dict[str, JsonValue]] = field(
        factory=lambda: dict[str, dict[str, JsonValue]](), init=False
    )
    _sending: trio.Lock = field(factory=trio.Lock, init=False)

    async def serve(self) -> None:
        """Take messages; returns after too many that could not be understood."""
        mistakes = 0
        async with trio.open_nursery() as nursery:
            while mistakes < MISTAKES_MAX:
                message = await self._socket.receive()
                subscription_id: str | None = None
                try:
                    json = _read(message)
                    subscription_id = _text(json, "id")
                    self._take(json, nursery)
                except AikiError as error:
                    mistakes += 1
                    await self._send_error(error, subscription_id)
            nursery.cancel_scope.cancel()

    async def say_goodbye(self) -> None:
        """Tell every subscription from where to resume, and close."""
        self._sending = trio.Lock()  # whoever held the other one has been cancelled
        for end in self._ends.values():
            await self._send(end)
        await self._socket.close(GOING_AWAY, "the server is stopping; resume")

    def _take(self, json: Mapping[str, JsonValue], nursery: trio.Nursery) -> None:
        kind = _text(json, "type")
        rest = {name: value for name, value in json.items() if name != "type"}
        match kind:
            case "subscribe":
                asked = _subscribe(rest)
                if asked.id in self._open:
                    message = f"id={asked.id!r} is subscribed already; unsubscribe it first"
                    raise InvalidRequest(message)
                maximum = self._gate.settings.subscriptions_max
                if len(self._open) >= maximum:
                    fix = "unsubscribe one, or open another websocket"
                    raise LimitExceeded(
                        "subscriptions of a websocket", maximum, len(self._open) + 1, fix
                    )
                scope = self._open[asked.id] = trio.CancelScope()
                nursery.start_soon(self._run, asked, scope)
            case "unsubscribe":
                found = self._open.pop(_text(json, "id"), None)
                if found is None:
                    message = f"no subscription has the id {_text(json, 'id')!r}"
                    raise NotFound(message)
                found.cancel()
            case _:
                message = f"type={kind[:50]!r} is not valid: use subscribe or unsubscribe"
                raise InvalidRequest(message)

    async def _run(self, asked: Subscribe, scope: trio.CancelScope) -> None:
        """Serve one subscription, to its end."""
        with scope:
            where = StreamFilter(
                runs=asked.runs, workflows=asked.workflows, statuses=asked.statuses
            )
            start = StreamStart(after=asked.after, position=asked.position, latest=asked.latest)
            buffer = self._gate.settings.subscriber_updates_max
            try:
                async with self._gate.engine.subscribe(
                    self._namespace, where, start, buffer=buffer
                ) as stream:
                    with self._gate.metrics.namespace_stream():
                        await self._pump(asked, stream)
            except AikiError as error:
                await self._send_error(error, asked.id)
        if self._open.get(asked.id) is scope:
            del self._open[asked.id]
            self._ends.pop(asked.id, None)

    async def _pump(self, asked: Subscribe, stream: LiveStream) -> None:
        left = dict.fromkeys(asked.runs)
        told = _Told(asked, stream)
        gate = self._gate
        try:
            while True:
                self._ends[asked.id] = told.end("closing")
                for one in await stream.next_batch(gather_s(gate.metrics, gate.settings)):
                    await self._send_text(told.message(one, gate.texts))
                    gate.metrics.updates_sent += 1
                    for run_id, seq in _ended(one):
                        if run_id in left:
                            del left[run_id]
                            after = {} if seq is None else {run_id: seq}
                            await self._send(told.end("ended", run_id=run_id, after=after))
                if asked.runs and not left:
                    await self._send(told.end("ended"))
                    return
        except AikiError as error:
            if error.code != TOO_SLOW:
                raise
            self._gate.metrics.streams_cut_off += 1
            await self._send(told.end("slow"))

    async def _send_error(self, error: AikiError, subscription_id: str | None) -> None:
        message: dict[str, JsonValue] = {"type": "error", "error": to_wire(problem_of(error))}
        if subscription_id:
            message["id"] = subscription_id
        await self._send(message)

    async def _send(self, message: JsonValue) -> None:
        await self._send_text(dumps(message))

    async def _send_text(self, text: bytes) -> None:
        async with self._sending:
            await self._socket.send(text.decode())


@define(eq=False)
class _Told:
    """What is said about one subscription."""

    _asked: Subscribe
    _stream: LiveStream

    def message(self, one: Snapshot | Positioned, texts: Texts[Update]) -> bytes:
        """Return what is sent for a part of the stream."""
        if isinstance(one, Snapshot):
            snapshot = snapshot_json(one)
            assert isinstance(snapshot, dict), "a snapshot is an object"
            return dumps({"type": "snapshot", "id": self._asked.id, **snapshot})
        head = dumps({"type": "update", "id": self._asked.id, "position": one.position})
        return b'%b,"update":%b}' % (head[:-1], texts.of(one.update))

    def end(
        self, reason: str, *, run_id: str | None = None, after: Mapping[str, int] | None = None
    ) -> dict[str, JsonValue]:
        """Return what is sent at the end: of one run's part, or of the subscription."""
        cursors = {**self._asked.after, **self._stream.cursors()} if after is None else after
        end: dict[str, JsonValue] = {
            "type": "end",
            "id": self._asked.id,
            "reason": reason,
            "after": dict(cursors),
        }
        if run_id is not None:
            end["run_id"] = run_id
        return end


def _ended(one: Snapshot | Positioned) -> list[tuple[str, int | None]]:
    """Return the runs that have ended by this, with the seq of their last entry if it is known."""
    if isinstance(one, Snapshot):
        return [(run.id, None) for run in one.runs if run.status.terminal]
    update = one.update
    return [(update.run_id, update.seq)] if update.status.terminal and not update.live else []


def _read(message: str | bytes | None) -> Mapping[str, JsonValue]:
    if not isinstance(message, str):
        problem = "a message is not valid: send JSON as text, not bytes"
        raise InvalidRequest(problem)
    json = strict_json(message, "message")
    if not isinstance(json, dict):
        problem = "a message is not valid: send a JSON object"
        raise InvalidRequest(problem)
    return json


def _text(json: Mapping[str, JsonValue], name: str) -> str:
    value = json.get(name)
    if not isinstance(value, str) or not value:
        message = f"{name} is not valid: send a text that is not empty"
        raise InvalidRequest(message)
    return value


def _subscribe(json: dict[str, JsonValue]) -> Subscribe:
    begin = json.pop("from", None)
    if begin not in (None, "latest"):
        message = "from is not valid: send 'latest', or leave it out"
        raise InvalidRequest(message)
    refuse_unknown(json, Subscribe, "message")
    filled = {name: value for name, value in json.items() if value is not None}
    return checked({**filled, "latest": begin == "latest"}, Subscribe, "message")
