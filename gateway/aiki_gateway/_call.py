"""One request and its answer, as handlers see them: no web framework, no socket.

A `Call` is made after authentication and after the body was read and parsed; what a handler gives
back is a `Reply`, or, for a live stream, what it wrote to its `StreamOut`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import parse_qsl

import trio
from attrs import define, field, frozen

from aiki_sdk import InvalidRequest, JsonValue
from aiki_sdk._json import dumps
from aiki_sdk.protocol import ClientPort, Update, to_wire

from ._engine import Engine, Positioned
from ._fields import checked, read_body
from ._metrics import Metrics
from ._settings import GatewaySettings

T = TypeVar("T")

JSON: Final = "application/json"
QUERY_FIELDS_MAX: Final = 200
"""Parameters in one query: 32 labels, every status, and room."""

IDEMPOTENCY_KEY_LENGTH_MAX: Final = 200
"""So that it fits into a reference id, with its prefix."""

Scalar = str | int | float | datetime


@frozen(kw_only=True)
class Param:
    """One parameter of a query.

    Attributes:
        name: its name.
        schema: its JSON Schema, by which it is also read: `type` string, integer,
            number or boolean.
        about: what it does, for the documentation.
        many: whether it may be given more than once.
        required: whether it must be given.
    """

    name: str
    schema: Mapping[str, JsonValue]
    about: str
    many: bool = False
    required: bool = False


@frozen
class Reply:
    """An answer that is complete."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def json_reply(value: object, status: int = 200, **headers: str) -> Reply:
    """Answer with a wire value."""
    return Reply(status, dumps(to_wire(value)), headers=tuple(headers.items()))


class StreamOut(Protocol):
    """Where a live stream is written to."""

    async def open(self) -> None:
        """Send the headers; from here on errors cannot be told by a status any more."""
        ...

    async def send(self, data: bytes) -> None:
        """Send a part of the stream, waiting until the system has taken it."""
        ...

    @property
    def sent_bytes(self) -> int:
        """How much was sent."""
        ...


@define(eq=False)
class Texts(Generic[T]):
    """What is told as text, written once for all who watch.

    The same thing is sent to every subscriber within moments, so that the last few are kept.

    Attributes:
        write: makes the text of a thing.
    """

    write: Callable[[T], bytes]
    kept_max: int = 2_000
    bytes_max: int = 8 * 1024 * 1024
    _bytes: int = field(default=0, init=False)
    _texts: OrderedDict[int, tuple[T, bytes]] = field(
        factory=lambda: OrderedDict[int, tuple[T, bytes]](), init=False
    )

    def of(self, thing: T) -> bytes:
        """Return the text of a thing."""
        found = self._texts.get(id(thing))
        if found is not None:
            return found[1]
        data = self.write(thing)
        # The thing is held too, so that nothing else can have its id.
        self._texts[id(thing)] = (thing, data)
        self._bytes += len(data)
        while len(self._texts) > self.kept_max or self._bytes > self.bytes_max:
            _, (_, old) = self._texts.popitem(last=False)
            self._bytes -= len(old)
        return data


@frozen(eq=False)
class Facts:
    """What handlers may know of the gateway itself.

    Attributes:
        metrics: what it counts.
        closing: set when it stops: what waits, ends then.
        openapi: the OpenAPI document, as JSON.
        texts: updates as JSON.
        events: updates as server-sent events of a namespace's stream.
    """

    metrics: Metrics
    closing: trio.Event
    openapi: Callable[[], bytes]
    texts: Texts[Update]
    events: Texts[Positioned]


@define(eq=False)
class Call:
    """One request.

    Attributes:
        path: what the braces of the route's path stand for.
        query: the parameters of the query, each with all its values, in order.
        headers: by lower-case name; of several of one name, joined with a comma.
        body: the parsed body; None: there was none.
    """

    engine: Engine
    settings: GatewaySettings
    facts: Facts
    namespace: str
    path: Mapping[str, str]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: JsonValue = None
    has_body: bool = False
    params: Mapping[str, Param] = field(factory=lambda: dict[str, Param]())

    @property
    def port(self) -> ClientPort:
        """The port of the caller's namespace."""
        return self.engine.client_port(self.namespace)

    @property
    def run_id(self) -> str:
        """The run that the path names."""
        return self.path["run_id"]

    def read(self, cls: type[T], *, fill: Mapping[str, JsonValue] | None = None) -> T:
        """Return the body as a wire value; `fill` gives members that were left out.

        Raises:
            InvalidRequest: there is no body, it has members that the type has not, or its values
                do not fit.
        """
        if not self.has_body:
            if fill is None:
                message = "the request has no body; send a JSON object"
                raise InvalidRequest(message)
            return checked(dict(fill), cls, "body")
        return read_body(self.body, cls, fill)

    def text(self, name: str) -> str | None:
        """Return a parameter of the query, None if it was not given."""
        value = self._one(name)
        return value if isinstance(value, str) else None

    def number(self, name: str, default: float) -> float:
        """Return a number of the query."""
        value = self._one(name)
        return value if isinstance(value, int | float) else default

    def integer(self, name: str, default: int) -> int:
        """Return a whole number of the query."""
        value = self._one(name)
        return value if isinstance(value, int) else default

    def flag(self, name: str) -> bool:
        """Return whether a parameter of the query is `true`."""
        return self._one(name) is True

    def time(self, name: str) -> datetime | None:
        """Return a time of the query."""
        value = self._one(name)
        return value if isinstance(value, datetime) else None

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter that may be given more than once."""
        return self.query.get(name, [])

    def _one(self, name: str) -> Scalar | None:
        values = self.query.get(name)
        return None if not values else read_param(self.params[name], values[0])

    def idempotent(self, reference_id: str | None, index: int | None = None) -> str | None:
        """Return the reference id of a request: its own, or one made of its idempotency key.

        Args:
            reference_id: its own.
            index: its place, if the key is that of a batch; None: it has the key to itself.

        Raises:
            InvalidRequest: the key is empty, too long, or not printable ASCII.
        """
        key = self.headers.get("idempotency-key")
        if key is None or reference_id is not None:
            return reference_id
        if not (0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX and key.isascii() and key.isprintable()):
            message = (
                "the Idempotency-Key is not valid: use 1 to "
                f"{IDEMPOTENCY_KEY_LENGTH_MAX} printable ASCII characters"
            )
            raise InvalidRequest(message)
        place = "" if index is None else f"[{index}]"
        return f"idempotency{place}:{key}"


def read_query(raw: bytes, params: Mapping[str, Param]) -> Mapping[str, list[str]]:
    """Read and check a query; every value fits its parameter's schema afterwards.

    Raises:
        InvalidRequest: naming the parameter and the rule.
    """
    found: dict[str, list[str]] = {}
    if raw:
        try:
            pairs = parse_qsl(
                raw.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=QUERY_FIELDS_MAX,
            )
        except ValueError as error:  # UnicodeDecodeError is one too
            message = f"the query is not valid: {error}"
            raise InvalidRequest(message) from error
        for name, value in pairs:
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        param = params.get(name)
        if param is None:
            known = ", ".join(params) or "none"
            message = f"the query parameter {name[:100]!r} is not known (known: {known})"
            raise InvalidRequest(message)
        if len(values) > 1 and not param.many:
            message = f"the query parameter {name!r} is given {len(values)} times; give it once"
            raise InvalidRequest(message)
        for value in values:
            read_param(param, value)
    for param in params.values():
        if param.required and param.name not in found:
            message = f"the query parameter {param.name!r} is missing"
            raise InvalidRequest(message)
    return found


def read_param(param: Param, text: str) -> Scalar:
    """Return the value of a parameter.

    Raises:
        InvalidRequest: naming the parameter, the value and the rule.
    """
    schema = param.schema
    try:
        if "\x00" in text:
            raise ValueError("remove the NUL characters")
        match schema.get("type"):
            case "integer":
                return _bounded(_integer(text), schema)
            case "boolean":
                return _boolean(text)
            case "number":
                return _bounded(_number(text), schema)
            case _ if schema.get("format") == "date-time":
                return _time(text)
            case _:
                words = schema.get("enum")
                if isinstance(words, list) and text not in words:
                    raise ValueError(f"use one of {', '.join(map(str, words))}")
                return text
    except ValueError as error:
        message = f"{param.name}={text[:100]!r} is not valid: {error}"
        raise InvalidRequest(message) from error


def _integer(text: str) -> int:
    if not (text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20):
        raise ValueError("pass a whole number")
    return int(text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("use true or false")
    return text == "true"


def _number(text: str) -> float:
    if not text.isascii() or "_" in text or len(text) > 40 or not text.strip():
        raise ValueError("pass a number")
    value = float(text)
    if value - value != 0:  # infinities and NaN
        raise ValueError("pass a finite number")
    return value


def _time(text: str) -> datetime:
    # A plus sign that was not escaped has become a blank.
    value = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    if value.utcoffset() is None:
        raise ValueError("give the time zone, such as 2026-01-31T12:00:00Z")
    return value


def _bounded(value: float, schema: Mapping[str, JsonValue]) -> int | float:
    low, high = schema.get("minimum"), schema.get("maximum")
    if (isinstance(low, int | float) and value < low) or (
        isinstance(high, int | float) and value > high
    ):
        bounds = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(f"use {bounds}")
    return value
