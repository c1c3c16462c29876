"""How the fields of entries and notices are written as JSON and read back, by their annotations.

Reading is strict: a value of another JSON type than was written is an error, never converted.
Enums and small attrs classes need no line here; they are found by their name. Which field is a
time and which a duration is told by its name: `…_at` and `deadline` are times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias, cast

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from aiki_actors.engine import Call, Micros
from aiki_sdk import ErrorInfo, JsonValue, dumps

from ._times import micros_from_iso, micros_from_seconds, micros_to_iso, micros_to_seconds

Read: TypeAlias = Callable[[Any, Any], Any]
"""From a JSON value and the field's type to the field's value."""
Write: TypeAlias = Callable[[Any], Any]
"""From a field's value to a JSON value."""


def same(value: Any, _type: Any = None) -> Any:
    """Write or read what is JSON already."""
    return value


def _exactly(kind: type) -> Read:
    def read(value: Any, _type: Any) -> Any:
        if type(value) is not kind:
            message = f"{type(value).__name__} instead of {kind.__name__}"
            raise TypeError(message)
        return value

    return read


text = _exactly(str)


def optional(read: Read) -> Read:
    """Return how a value is read that may be None."""

    def read_optional(value: Any, kind: Any) -> Any:
        return None if value is None else read(value, kind)

    return read_optional


def _labels(value: Any, _type: Any) -> dict[str, str]:
    return {text(name, str): text(label, str) for name, label in value.items()}


def _texts(value: Any, _type: Any) -> tuple[str, ...]:
    return tuple(text(item, str) for item in value)


def _float(value: Any, _type: Any) -> float:
    if type(value) not in {int, float}:
        message = f"{type(value).__name__} instead of a number"
        raise TypeError(message)
    return float(value)


def _write_call(call: Call) -> dict[str, str | int]:
    form: dict[str, str | int] = {"address": call.address}
    if call.branch:
        form["branch"] = call.branch
    if call.index:
        form["index"] = call.index
    return form


def _read_call(value: Any, _type: Any) -> Call:
    return Call(value["address"], value.get("branch", ""), value.get("index", 0))


def _write_calls(calls: tuple[Call, ...]) -> list[dict[str, str | int]]:
    return [_write_call(call) for call in calls]


def _read_calls(value: Any, _type: Any) -> tuple[Call, ...]:
    return tuple([_read_call(item, Call) for item in value])


def _write_optional(write: Write) -> Write:
    return lambda value: None if value is None else write(value)


def _write_enum(value: Enum) -> Any:
    return value.value


def _read_time(value: Any, _type: Any) -> Micros:
    return micros_from_iso(value)


def _read_duration(value: Any, _type: Any) -> Micros:
    return micros_from_seconds(value)


def read_error(value: Any, _type: Any) -> ErrorInfo:
    """Read an error from its JSON form."""
    if not isinstance(value, dict):
        message = f"{type(value).__name__} instead of an error"
        raise TypeError(message)
    return ErrorInfo.from_json(cast("dict[str, JsonValue]", value))


def splice_error(error: ErrorInfo) -> bytes:
    """Write an error as a document."""
    return dumps(error.to_json())


_PLAIN: Final[Mapping[str, tuple[Write, Read]]] = {
    "Call": (_write_call, _read_call),
    "Mapping[str, str]": (dict, _labels),
    "bool": (same, _exactly(bool)),
    "float": (same, _float),
    "int": (same, _exactly(int)),
    "str": (same, text),
    "tuple[Call, ...]": (_write_calls, _read_calls),
    "tuple[str, ...]": (same, _texts),
}
"""How a field is written into and read from the plain part, by its annotation."""

_TIME: Final[tuple[Write, Read]] = (micros_to_iso, _read_time)
_DURATION: Final[tuple[Write, Read]] = (micros_to_seconds, _read_duration)
converter: Final = Converter(detailed_validation=False)


def plain_field(owner: type[Any], name: str) -> tuple[Write, Read]:
    """Return how a field is written into and read from the plain part."""
    annotation = annotation_of(owner, name)
    inner = annotation.removesuffix(" | None")
    if inner == "Micros":
        write, read = _TIME if name.endswith("_at") or name == "deadline" else _DURATION
    elif inner in _PLAIN:
        write, read = _PLAIN[inner]
    else:
        write, read = _class(vars(sys.modules[owner.__module__])[inner])
    return (write, read) if inner == annotation else (_write_optional(write), optional(read))


def annotation_of(owner: type[Any], name: str) -> str:
    """Return a field's annotation as it is written in the source."""
    annotation = owner.__annotations__[name]
    assert isinstance(annotation, str), f"{owner} is not in a module with deferred annotations"
    return annotation


def _class(cls: type[Any]) -> tuple[Write, Read]:
    """Return how an enum or a small attrs class is written and read, as a part of something."""
    if issubclass(cls, Enum):
        return _write_enum, lambda value, _type: cls(value)
    writing: dict[str, Any] = {}
    reading: dict[str, Any] = {}
    for attribute in attrs.fields(cls):
        write, read = plain_field(cls, attribute.name)
        writing[attribute.name] = override(unstruct_hook=write, omit_if_default=True)
        reading[attribute.name] = override(struct_hook=read)
    return (
        make_dict_unstructure_fn(cls, converter, **writing),
        make_dict_structure_fn(cls, converter, **reading),
    )
