"""JSON Schema (2020-12) of wire types: what the payload converter writes and reads.

Classes become components that are referred to by name; everything else is written where it is
used. What the constructors of requests check beyond types is in `RULES`, so that a client that
keeps to the schema is not refused for the form of what it sends.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, cast

import attrs

from aiki_sdk import JsonValue
from aiki_sdk._error_info import ErrorInfo
from aiki_sdk.protocol import (
    ControlRequest,
    ForkRequest,
    RunQuery,
    SendRequest,
    StartRequest,
)

from ._bodies import BulkBody, ReasonBody, SendBody, StartBatch, WakeBody

Schema = dict[str, JsonValue]

_PLACE: Final = "#/components/schemas/"

_NAME: Final[Schema] = {"maxLength": 128, "pattern": "^[A-Za-z0-9][A-Za-z0-9._/-]*$"}
_VERSION: Final[Schema] = {"maxLength": 64, "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$"}
_HASH: Final[Schema] = {"pattern": "^[0-9a-f]{64}$"}
_REFERENCE: Final[Schema] = {"minLength": 1, "maxLength": 256}
_REASON: Final[Schema] = {"minLength": 1, "maxLength": 1000}
_LABELS: Final[Schema] = {
    "maxProperties": 32,
    "propertyNames": _NAME,
    "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 256},
}
_SECONDS: Final[Schema] = {"minimum": 0, "maximum": 3_000_000_000}
_BATCH: Final[Schema] = {"maxItems": 1000}

RULES: Final[Mapping[tuple[type, str], Schema]] = {
    (StartRequest, "workflow"): _NAME,
    (StartRequest, "version"): _VERSION,
    (StartRequest, "input"): {"type": "object"},
    (StartRequest, "input_hash"): _HASH,
    (StartRequest, "reference_id"): _REFERENCE,
    (StartRequest, "delay_s"): _SECONDS,
    (StartRequest, "pool"): _NAME,
    (StartRequest, "retry"): {"type": ["object", "null"]},
    (StartRequest, "timeout_s"): {"exclusiveMinimum": 0, "maximum": 3_000_000_000},
    (StartRequest, "labels"): _LABELS,
    (SendRequest, "event"): _NAME,
    (SendRequest, "reference_id"): _REFERENCE,
    (SendBody, "reference_id"): _REFERENCE,
    (ForkRequest, "at"): {"minimum": 1},
    (ForkRequest, "input_hash"): _HASH,
    (ForkRequest, "version"): _VERSION,
    (ControlRequest, "reason"): _REASON,
    (ControlRequest, "sleep"): _NAME,
    (ReasonBody, "reason"): _REASON,
    (WakeBody, "sleep"): _NAME,
    (RunQuery, "workflow"): _NAME,
    (RunQuery, "version"): _VERSION,
    (RunQuery, "labels"): _LABELS,
    (RunQuery, "limit"): {"minimum": 1, "maximum": 500},
    (StartBatch, "runs"): _BATCH,
    (BulkBody, "run_ids"): _BATCH,
}
"""What fields must fulfil besides their types."""

_SCALARS: Final[Mapping[object, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
    dict: {"type": "object"},
}


_SCALAR_TYPES: Final = frozenset((bool, int, float, str))


class Components:
    """Collects the classes that schemas refer to."""

    def __init__(self, requests: Mapping[type, Sequence[str]]) -> None:
        """Take the types of bodies, with the members that may be left out of each."""
        self.schemas: Schema = {}
        self._requests = requests
        self._strict: set[type] = set()

    def of(self, type_: object, *, request: bool = False) -> Schema:
        """Return the schema of a type; in a request, no other members are allowed."""
        if _is_json(type_):
            return {}
        scalar = _SCALARS.get(type_)
        if scalar is not None:
            return dict(scalar)
        cls = _as_class(type_)
        if cls is not None:
            if issubclass(cls, Enum):
                return self._named(cls, lambda: _enum(cls))
            if cls is ErrorInfo:
                return self._named(cls, _error_info)
            if attrs.has(cls):
                return self._named(cls, lambda: self._class(cls, request))
        return self._generic(type_, request)

    def _generic(self, type_: object, request: bool) -> Schema:
        origin, arguments = typing.get_origin(type_), typing.get_args(type_)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(member, request=request) for member in arguments]}
        if origin in (tuple, list, Sequence):
            return {"type": "array", "items": self.of(arguments[0], request=request)}
        if isinstance(origin, type) and issubclass(origin, Mapping):
            schema: Schema = {"type": "object"}
            if arguments[0] is int:
                schema["propertyNames"] = {"pattern": "^-?[0-9]+$"}
            return {**schema, "additionalProperties": self.of(arguments[1], request=request)}
        message = f"no JSON Schema is known for {type_!r}; add it to {__name__}"
        raise AssertionError(message)

    def _named(self, cls: type, make: Callable[[], Schema]) -> Schema:
        name = cls.__name__
        if name not in self.schemas:
            self.schemas[name] = {}  # for classes that hold themselves
            self.schemas[name] = make()
        return {"$ref": _PLACE + name}

    def _class(self, cls: type, request: bool) -> Schema:
        hints = typing.get_type_hints(cls)
        optional = self._requests.get(cls, ())
        properties: Schema = {}
        required: list[JsonValue] = []
        for one in attrs.fields(cast("type[attrs.AttrsInstance]", cls)):
            schema = self.of(hints[one.name], request=request)
            rule = RULES.get((cls, one.name))
            properties[one.name] = schema if rule is None else _ruled(schema, rule)
            if not request or (one.default is attrs.NOTHING and one.name not in optional):
                required.append(one.name)
        described: Schema = {
            "type": "object",
            "description": (cls.__doc__ or "").strip().partition("\n")[0],
            "properties": properties,
        }
        if required:
            described["required"] = required
        if request:
            described["additionalProperties"] = False
        return described


def _ruled(schema: Schema, rule: Schema) -> Schema:
    """Add a rule to a schema: to the member of a union that is not null, or to all of it."""
    members = schema.get("anyOf")
    if not isinstance(members, list):
        return {**schema, **rule}
    return {
        "anyOf": [
            {**member, **rule}
            if isinstance(member, dict) and member.get("type") != "null"
            else member
            for member in members
        ]
    }


def _enum(cls: type[Enum]) -> Schema:
    return {
        "type": "string",
        "description": (cls.__doc__ or "").strip().partition("\n")[0],
        "enum": [member.value for member in cls],
    }


def _error_info() -> Schema:
    return {
        "type": "object",
        "description": "An error as it was recorded.",
        "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        "required": ["type", "message"],
    }


def _as_class(type_: object) -> type[object] | None:
    return type_ if isinstance(type_, type) else None


def _is_json(type_: object) -> bool:
    """Tell whether a type is any JSON at all: `JsonValue`, however it was resolved."""
    return type_ is Any or type_ is object or {*typing.get_args(type_)} >= _SCALAR_TYPES
