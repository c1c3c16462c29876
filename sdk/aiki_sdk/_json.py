"""JSON text, fast where it can be and exact where it must be.

`dumps` and `loads` are the only way in which this project writes and reads JSON. Both run on orjson
and give way to the standard library for the one thing that orjson cannot do: integers of more than
64 bits. Such a document starts with one space (`BIG_INT_MARK`), which JSON allows and orjson never
writes, so that `loads` knows which of the two must read it (orjson would read such integers as
floats and lose digits).

Invariants: `loads(dumps(value)) == value` for every `JsonValue`; nothing that JSON or a database
cannot hold is ever written (non-finite numbers, lone surrogates, NUL). Payloads, which are what
users send, also nest at most `DEPTH_MAX` levels (`check_written`, `check_json`). What is refused is
a `PayloadError` that names the place; the place is searched for only after something was found
wrong, so that correct values pay nothing for the good message.
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

_DOCUMENT_DEPTH_MAX: Final = 200
"""The same for whole documents, which carry payloads inside messages: below orjson's own 254."""

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
    data = dumps_finite(value)
    # orjson writes NaN and infinities as `null`.
    if b"null" in data and _holds_non_finite(value):
        check_json(value, depth_max=_DOCUMENT_DEPTH_MAX)
    return data


def dumps_finite(value: JsonValue) -> bytes:
    """Do as `dumps`, for a value that is known to hold no NaN and no infinity.

    What the payload converter and `loads` return is such. Cheaper where the value holds None, which
    `dumps` has to tell from a NaN by looking at every part of it.

    Raises:
        PayloadError: as `dumps`.
    """
    try:
        data = orjson.dumps(value, option=_STRICT)
    except TypeError:
        return _dumps_exact(value)
    if _NULL_CHARACTER in data:  # or a backslash before "u0000"
        check_json(value, depth_max=_DOCUMENT_DEPTH_MAX)
    return data


def check_written(value: JsonValue, data: bytes) -> None:
    """Check a finite payload that orjson has written: no NUL, not too deep.

    Args:
        value: the payload.
        data: what orjson made of it; whatever is not seen in it need not be looked for.

    Raises:
        PayloadError: naming the place.
    """
    if _NULL_CHARACTER in data or (
        len(data) > DEPTH_MAX
        and data.count(b"[") + data.count(b"{") > DEPTH_MAX
        and _nests_too_deep(value)
    ):
        check_json(value)


def _holds_non_finite(value: JsonValue) -> bool:
    rest: list[JsonValue] = [value]
    for part in rest:  # grows while it is walked
        if isinstance(part, dict):
            rest.extend(part.values())
        elif isinstance(part, list):
            rest.extend(part)
        elif isinstance(part, float) and not math.isfinite(part):
            return True
    return False


def _nests_too_deep(value: JsonValue) -> bool:
    level: list[JsonValue] = [value]
    for _ in range(DEPTH_MAX + 1):
        below: list[JsonValue] = []
        for part in level:
            if isinstance(part, dict):
                below.extend(part.values())
            elif isinstance(part, list):
                below.extend(part)
        if not below:
            return False
        level = below
    return True


def _dumps_exact(value: JsonValue) -> bytes:
    check_json(value, depth_max=_DOCUMENT_DEPTH_MAX)
    try:
        text = _exact_encoder.encode(value)
    except ValueError as error:  # an integer of more than sys.get_int_max_str_digits() digits
        message = f"cannot be written as JSON: {error}"
        raise PayloadError(message) from error
    return BIG_INT_MARK + text.encode()


def loads(data: bytes | bytearray | memoryview | str) -> JsonValue:
    """Read a JSON document.

    Raises:
        PayloadError: if it is not JSON, is not UTF-8, or nests deeper than 1,024 levels.
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


def check_json(value: object, path: str = "value", *, depth_max: int = DEPTH_MAX) -> None:
    """Check that a value is a `JsonValue` that may be stored.

    Args:
        value: what to check.
        path: what to call it in the error.
        depth_max: how deep it may nest.

    Raises:
        PayloadError: naming the first place that is wrong, its type and what to do.
    """
    _check(value, path, depth_max, depth_max)


def _check(value: Any, path: str, levels: int, depth_max: int) -> None:
    cls = value.__class__
    if cls is dict or cls is list:
        if levels == 0:
            fix = f"nested deeper than {depth_max} levels; flatten the value"
            raise PayloadError.at(path, value, fix)
        if cls is dict:
            _check_members(value, path, levels - 1, depth_max)
        else:
            for index, item in enumerate(value):
                _check(item, f"{path}[{index}]", levels - 1, depth_max)
    elif isinstance(value, str):
        check_text(value, path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            fix = "JSON has no such number; send None or a string"
            raise PayloadError.at(path, value, fix)
    elif value is not None and not isinstance(value, int):
        raise PayloadError.at(path, value, "not a JSON value; convert it first")


def _check_members(members: dict[Any, Any], path: str, levels: int, depth_max: int) -> None:
    for key, item in members.items():
        if not isinstance(key, str):
            fix = "keys of a JSON object are strings; declare dict[int, ...] or convert them"
            raise PayloadError.at(path, key, fix)
        check_text(key, f"a key of {path}")
        _check(item, f"{path}[{key!r}]", levels, depth_max)


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
