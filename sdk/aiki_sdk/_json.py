"""JSON text, fast where it can be and exact where it must be.

`dumps` and `loads` are the only way in which this project writes and reads JSON. Both run on orjson
and give way to the standard library for the one thing that orjson cannot do: integers of more than
64 bits. Such a document starts with one space (`BIG_INT_MARK`), which JSON allows and orjson never
writes, so that `loads` knows which of the two must read it (orjson would read such integers as
floats and lose digits).

Invariants: `loads(dumps(value)) == value` for every `JsonValue`; nothing that JSON or a database
cannot hold is ever written (non-finite numbers, lone surrogates, NUL, more than `DEPTH_MAX` levels
of nesting). What is refused is a `PayloadError` that names the place. The place is searched for
only after something was found wrong, so that correct values pay nothing for the good message.
"""

import json
import math
from typing import Any, Final, Never, TypeAlias, Union

import orjson

from aiki_sdk._errors import PayloadError

# Not written with `|`: the names inside are resolved only when a type checker looks.
JsonValue: TypeAlias = Union[  # noqa: UP007
    bool, int, float, str, list["JsonValue"], dict[str, "JsonValue"], None
]

DEPTH_MAX: Final = 64
"""How deep lists and objects may nest: enough for any honest payload, shallow enough that no
recursive reader (database, browser, other SDK) runs out of stack."""

BIG_INT_MARK: Final = b" "
"""First byte of a document that holds an integer of more than 64 bits."""

_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_NULL_CHARACTER: Final = b"\\u0000"

# Compact, UTF-8, no NaN: as orjson writes it. Encodes in C, so it is also the fast NaN check.
_exact_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dumps(value: JsonValue) -> bytes:
    """Write a JSON value as compact UTF-8.

    Args:
        value: None, bool, int, float, str, list, or dict with str keys; nothing else.

    Returns:
        The document. It starts with a space if an integer in it needs more than 64 bits.

    Raises:
        PayloadError: if the value cannot be JSON; the message names the place in it.
    """
    try:
        data = orjson.dumps(value, option=_STRICT)
    except TypeError:
        return _dumps_exact(value)
    if suspicious(data):
        check_json(value)
    return data


def suspicious(data: bytes) -> bool:
    """Tell whether a document that orjson wrote may hide something that is not allowed.

    orjson writes NaN and infinities as `null`, takes NUL, and nests up to 254 levels. True means
    only that `check_json` has to look.
    """
    return b"null" in data or nul_or_deep(data)


def nul_or_deep(data: bytes) -> bool:
    """Tell the same of a document that is known to hold no NaN and no infinity."""
    return _NULL_CHARACTER in data or data.count(b"[") + data.count(b"{") > DEPTH_MAX


def _dumps_exact(value: JsonValue) -> bytes:
    check_json(value)
    try:
        text = _exact_encoder.encode(value)
    except ValueError as error:  # an integer of more than sys.get_int_max_str_digits() digits
        message = f"cannot be written as JSON: {error}"
        raise PayloadError(message) from error
    return BIG_INT_MARK + text.encode()


def loads(data: bytes | bytearray | memoryview | str) -> JsonValue:
    """Read a JSON document.

    Raises:
        PayloadError: if it is not JSON, is not UTF-8, or nests deeper than `DEPTH_MAX`.
    """
    try:
        value: JsonValue
        if data[:1] in (BIG_INT_MARK, " "):
            text = data if isinstance(data, str) else bytes(data).decode()
            value = json.loads(text, parse_constant=_refuse_constant)
        else:
            value = orjson.loads(data)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are both
        message = f"not a JSON document: {error}"
        raise PayloadError(message) from error
    return value


def _refuse_constant(name: str) -> Never:
    message = f"{name} is not a JSON number"
    raise ValueError(message)


def check_json(value: object, path: str = "value") -> None:
    """Check that a value is a `JsonValue` that may be stored.

    Args:
        value: what to check.
        path: what to call it in the error.

    Raises:
        PayloadError: naming the first place that is wrong, its type and what to do.
    """
    _check(value, path, DEPTH_MAX)


def _check(value: Any, path: str, levels: int) -> None:
    cls = value.__class__
    if cls is dict or cls is list:
        if levels == 0:
            fix = f"nested deeper than {DEPTH_MAX} levels; flatten the value"
            raise PayloadError.at(path, value, fix)
        if cls is dict:
            _check_members(value, path, levels - 1)
        else:
            for index, item in enumerate(value):
                _check(item, f"{path}[{index}]", levels - 1)
    elif isinstance(value, str):
        check_text(value, path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            fix = "JSON has no such number; send None or a string"
            raise PayloadError.at(path, value, fix)
    elif value is not None and not isinstance(value, int):
        raise PayloadError.at(path, value, "not a JSON value; convert it first")


def _check_members(members: dict[Any, Any], path: str, levels: int) -> None:
    for key, item in members.items():
        if not isinstance(key, str):
            fix = "keys of a JSON object are strings; declare dict[int, ...] or convert them"
            raise PayloadError.at(path, key, fix)
        check_text(key, f"a key of {path}")
        _check(item, f"{path}[{key!r}]", levels)


def check_text(text: str, path: str) -> None:
    """Check that a string can be stored everywhere: no lone surrogates and no NUL.

    Raises:
        PayloadError: naming `path`.
    """
    if "\x00" in text:
        raise PayloadError.at(path, text, "holds a NUL character; remove it or send bytes")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        fix = "holds a lone surrogate; decode the text properly or send bytes"
        raise PayloadError.at(path, text, fix) from error
