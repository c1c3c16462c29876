"""Bodies as wire values: the members that a type has, and no others.

The wire reader ignores members that it does not know, so that an older client may read what a
newer server says. A server may not do that with what a client asks for: a member that it does not
know is a wish that it would not fulfil.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import TypeVar, Union

import attrs

from aiki_sdk import InvalidRequest, JsonValue, PayloadError
from aiki_sdk.protocol import from_wire

T = TypeVar("T")


def read_body(json: JsonValue, cls: type[T], fill: Mapping[str, JsonValue] | None = None) -> T:
    """Return a body as a wire value; `fill` gives members that were left out.

    Raises:
        InvalidRequest: it is no object, has a member that the type has not, or does not fit.
    """
    if not isinstance(json, dict):
        message = f"body is not valid: send a JSON object, not {_kind(json)}"
        raise InvalidRequest(message)
    refuse_unknown(json, cls, "body")
    return checked({**fill, **json} if fill else json, cls, "body")


def checked(json: JsonValue, cls: type[T], what: str) -> T:
    """Read a wire value; what its class refuses itself is told in the words of the class.

    Raises:
        InvalidRequest: naming the place that does not fit, or as the class has it.
    """
    try:
        return from_wire(json, cls, what)
    except PayloadError as error:
        cause = error.__cause__
        refusal = None if cause is None else cause.__cause__
        if isinstance(refusal, InvalidRequest):
            raise refusal from error
        raise


def refuse_unknown(json: JsonValue, type_: object, path: str) -> None:
    """Refuse members that a type, or a type inside it, has not.

    Raises:
        InvalidRequest: naming the place and the members that there are.
    """
    if isinstance(json, dict) and isinstance(type_, type) and attrs.has(type_):
        fields = fields_of(type_)
        for name, value in json.items():
            if name not in fields:
                known = ", ".join(fields) or "none"
                message = f"{path} has a member {name[:100]!r}, which is not known (known: {known})"
                raise InvalidRequest(message)
            inner = fields[name]
            if inner is not None:
                refuse_unknown(value, inner, f"{path}.{name}")
    elif isinstance(json, list) and (item := _item(type_)) is not None:
        for index, value in enumerate(json):
            refuse_unknown(value, item, f"{path}[{index}]")


@cache
def fields_of(cls: type) -> Mapping[str, object]:
    """Return the fields of an attrs class; of those that hold attrs classes, the type."""
    hints = typing.get_type_hints(cls)
    return {field.name: _checked(hints[field.name]) for field in attrs.fields(cls)}


def _checked(type_: object) -> object:
    """Return what has to be looked into: an attrs class, or a sequence of them; else None."""
    members = [type_]
    if typing.get_origin(type_) in (Union, UnionType):
        members = [member for member in typing.get_args(type_) if member is not NoneType]
    for member in members:
        if isinstance(member, type) and attrs.has(member):
            return member
        if _item(member) is not None:
            return member
    return None


def _item(type_: object) -> object:
    if typing.get_origin(type_) not in (tuple, list, Sequence):
        return None
    arguments = typing.get_args(type_)
    return _checked(arguments[0]) if arguments else None


def _kind(json: JsonValue) -> str:
    match json:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case list():
            return "an array"
        case str():
            return "a string"
        case _:
            return "a number"
