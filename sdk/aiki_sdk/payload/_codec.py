"""What one type compiles to: a pair of functions and the facts that unions need.

`encode` takes a value to JSON, `decode` takes JSON to a value; both raise `Misfit`, which collects
the path on its way up, so that nothing is spent on paths while nothing is wrong. `decode` ignores
its second argument; cattrs passes the type there.

The facts: which kinds of JSON the type writes, and by which classes its values are known.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from attrs import frozen

from aiki_sdk._error_info import type_name
from aiki_sdk._json import JsonValue

Kind: TypeAlias = str
"""A kind of JSON: one of the values of `KIND_OF_CLASS`."""

KIND_OF_CLASS: Final[dict[type, Kind]] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    list: "array",
    dict: "object",
}

_KIND_SHOWN: Final[dict[Kind, str]] = {
    "null": "null",
    "bool": "a boolean",
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "array": "a list",
    "object": "an object",
}

Encode: TypeAlias = Callable[[Any], JsonValue]
Decode: TypeAlias = Callable[..., Any]


class Misfit(Exception):  # never seen outside this package
    """A value does not fit its type; `path` grows from the inside out."""

    def __init__(self, reason: str, value: object = None) -> None:
        """Keep what is wrong with which value."""
        super().__init__(reason)
        self.reason = reason
        self.value = value
        self.path: str = ""

    def at(self, segment: str) -> "Misfit":
        """Put one step in front of the path: `.name`, `[3]`, `['key']`."""
        self.path = segment + self.path
        return self


@frozen
class Codec:
    """How values of one type travel.

    Attributes:
        encode: value to JSON.
        decode: JSON to value; a second argument is ignored.
        kinds: the kinds of JSON that `encode` returns.
        classes: a value belongs to this type if its class is, or derives from, one of these.
        tag: the type's name where it has to be told from others; empty for JSON's own types.
        literals: if not None, the only values there are.
    """

    encode: Encode
    decode: Decode
    kinds: frozenset[Kind]
    classes: tuple[type, ...]
    tag: str = ""
    literals: tuple[object, ...] | None = None


def is_a(value: object, classes: type | tuple[type, ...]) -> bool:
    """Tell as `isinstance` does, but narrow nothing: checkers would make `Any` half unknown."""
    return isinstance(value, classes)


def kind_shown(json: object) -> str:
    """Say in words which kind of JSON a value is."""
    kind = KIND_OF_CLASS.get(type(json))
    return _KIND_SHOWN[kind] if kind is not None else type_name(type(json))


def type_shown(type_: object) -> str:
    """Write a type as its annotation would read."""
    if isinstance(type_, type) and not getattr(type_, "__args__", None):
        return type_name(type_)
    return str(type_)


def wrong_class(expected: object, value: object) -> Misfit:
    """Return the misfit of a value that is not of the declared type."""
    return Misfit(f"expected {type_shown(expected)}, got {type_name(type(value))}", value)


def wrong_json(expected: str, json: object) -> Misfit:
    """Return the misfit of a document that is not what the declared type reads."""
    return Misfit(f"expected {expected}, got {kind_shown(json)}", json)
