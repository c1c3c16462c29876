"""Types that travel as one JSON string, number, boolean or null.

Each has one form, which is part of the canonical input and so never changes:

==============  ==================================================================================
`datetime`      ISO 8601 with six digits of microseconds; aware: with offset, naive: without
`date`, `time`  ISO 8601; times with six digits
`timedelta`     seconds as a number; from 272 years on, if microseconds would be lost, ISO 8601
`UUID`          lower case with dashes
`Decimal`       its text (`1.50` is not `1.5`)
`bytes`         base64 with padding
`Enum`          the member's value if all values are strings, numbers or booleans, else its name
==============  ==================================================================================

Strict: a boolean is not an integer, a string is not a number; only an integer may stand for a
float.
"""

import binascii
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum, Flag
from typing import Any, Final, TypeVar
from uuid import UUID

from aiki_sdk._error_info import type_name
from aiki_sdk._json import JsonValue
from aiki_sdk.payload._codec import Codec, Kind, Misfit, wrong_class, wrong_json

T = TypeVar("T")

_DURATION: Final = re.compile(
    r"(?P<sign>[+-]?)P(?!$)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:[.,]\d{1,6})?)S)?)?",
    re.ASCII,
)

_EXACT_DAYS: Final = 2**33 // 86_400
"""Days (272 years) from which on a double of seconds has no room left for microseconds."""


# --- JSON's own types -----------------------------------------------------------------------------


def _encode_none(value: Any) -> None:
    if value is not None:
        raise wrong_class(None, value)


def _decode_none(json: Any, _type: object = None) -> None:
    if json is not None:
        raise wrong_json("null", json)


def _encode_bool(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise wrong_class(bool, value)


def _decode_bool(json: Any, _type: object = None) -> bool:
    if json is True or json is False:
        return json
    raise wrong_json("a boolean", json)


def _encode_int(value: Any) -> int:
    if value.__class__ is int:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)  # IntEnum members and other subclasses are plain numbers on the wire
    raise wrong_class(int, value)


def _decode_int(json: Any, _type: object = None) -> int:
    if json.__class__ is int:
        return json
    raise wrong_json("an integer", json)


def _encode_float(value: Any) -> float:
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        reason = f"{value} is not a JSON number; send None or a string instead"
        raise Misfit(reason, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _to_float(value)
    raise wrong_class(float, value)


def _decode_float(json: Any, _type: object = None) -> float:
    if json.__class__ is float:
        return json
    if json.__class__ is int:
        return _to_float(json)
    raise wrong_json("a number", json)


def _to_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        reason = "too large for a float; declare it as int"
        raise Misfit(reason, value) from error


def _encode_str(value: Any) -> str:
    if value.__class__ is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise wrong_class(str, value)


def _decode_str(json: Any, _type: object = None) -> str:
    if json.__class__ is str:
        return json
    raise wrong_json("a string", json)


# --- Types written as a string --------------------------------------------------------------------


def _text_codec(
    cls: type[T], write: Callable[[T], str], read: Callable[[str], T], what: str
) -> Codec:
    def encode(value: Any) -> str:
        if value.__class__ is cls or isinstance(value, cls):
            return write(value)
        raise wrong_class(cls, value)

    def decode(json: Any, _type: object = None) -> T:
        if json.__class__ is not str:
            raise wrong_json(what, json)
        try:
            return read(json)
        except (ValueError, InvalidOperation) as error:
            reason = f"expected {what}, got another string"
            raise Misfit(reason, json) from error

    return Codec(encode, decode, _STRING, (cls,), cls.__name__)


def _write_datetime(value: datetime) -> str:
    return value.isoformat(timespec="microseconds")


def _write_time(value: time) -> str:
    return value.isoformat(timespec="microseconds")


def _write_date(value: date) -> str:
    if isinstance(value, datetime):  # a datetime is a date to isinstance, but not to its reader
        raise wrong_class(date, value)
    return value.isoformat()


def _read_date(text: str) -> date:
    return date.fromisoformat(text)


def _write_decimal(value: Decimal) -> str:
    if not value.is_finite():
        reason = f"{value} is not a number; send None or a string instead"
        raise Misfit(reason, value)
    return str(value)


def _read_decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError(text)
    return value


def _write_bytes(value: bytes | bytearray) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def _read_bytes(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


def _read_bytearray(text: str) -> bytearray:
    return bytearray(_read_bytes(text))


# --- Durations ------------------------------------------------------------------------------------


def _encode_timedelta(value: Any) -> float | str:
    if not isinstance(value, timedelta):
        raise wrong_class(timedelta, value)
    if value.microseconds == 0 or abs(value.days) < _EXACT_DAYS:
        return value.total_seconds()
    magnitude = abs(value)
    whole = magnitude.days * 86_400 + magnitude.seconds
    sign = "-" if value < timedelta(0) else ""
    return f"{sign}PT{whole}.{magnitude.microseconds:06d}S"


def _decode_timedelta(json: Any, _type: object = None) -> timedelta:
    try:
        if json.__class__ is float or json.__class__ is int:
            return timedelta(seconds=json)
        if json.__class__ is str:
            return read_duration(json)
    except (OverflowError, ValueError) as error:
        reason = "expected a duration in seconds or ISO 8601, of at most 999999999 days"
        raise Misfit(reason, json) from error
    raise wrong_json("a duration (seconds, or ISO 8601)", json)


def read_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration of weeks, days, hours, minutes and seconds.

    Years and months are refused, for they have no fixed length.

    Raises:
        ValueError: if it is not one.
        OverflowError: if it is longer than a timedelta can be.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        message = f"{text!r} is not an ISO 8601 duration such as 'P1DT2H' or 'PT0.5S'"
        raise ValueError(message)
    parts = match.groupdict()
    # Not float(): the microseconds of a long duration would be rounded away.
    seconds, _, fraction = (parts["seconds"] or "0").replace(",", ".").partition(".")
    duration = timedelta(
        weeks=int(parts["weeks"] or 0),
        days=int(parts["days"] or 0),
        hours=int(parts["hours"] or 0),
        minutes=int(parts["minutes"] or 0),
        seconds=int(seconds),
        microseconds=int(fraction.ljust(6, "0")),
    )
    return -duration if parts["sign"] == "-" else duration


# --- Enums and literals ---------------------------------------------------------------------------


def enum_codec(cls: type[Enum]) -> Codec:
    """Return the codec of an enum: by value if every value is JSON's own scalar, else by name."""
    members = tuple(cls.__members__.values())
    by_value = all(member.value.__class__ in _SCALAR_KINDS for member in members)
    if not by_value:
        return _enum_by_name(cls)
    known = {(member.value.__class__, member.value): member for member in members}
    combine = issubclass(cls, Flag)

    def encode(value: Any) -> JsonValue:
        if isinstance(value, cls):
            json: JsonValue = value.value
            return json
        raise wrong_class(cls, value)

    def decode(json: Any, _type: object = None) -> Enum:
        if json.__class__ not in _SCALAR_KINDS or (combine and json.__class__ is not int):
            raise wrong_json(f"a value of {type_name(cls)}", json)
        member = known.get((json.__class__, json))
        if member is not None:
            return member
        try:
            found = cls(json)  # flags combined, and whatever `_missing_` accepts
        except (ValueError, TypeError) as error:
            reason = f"not a value of {type_name(cls)}"
            raise Misfit(reason, json) from error
        if found.value.__class__ is not json.__class__:
            raise wrong_json(f"a value of {type_name(cls)}", json)  # True is not 1
        return found

    kinds = frozenset(_SCALAR_KINDS[member.value.__class__] for member in members)
    return Codec(encode, decode, kinds or _INTEGER, (cls,), cls.__name__)


def _enum_by_name(cls: type[Enum]) -> Codec:
    def encode(value: Any) -> str:
        if isinstance(value, cls):
            return value.name
        raise wrong_class(cls, value)

    def decode(json: Any, _type: object = None) -> Enum:
        member = cls.__members__.get(json) if isinstance(json, str) else None
        if member is None:
            reason = f"not the name of a member of {type_name(cls)}"
            raise Misfit(reason, json)
        return member

    return Codec(encode, decode, _STRING, (cls,), cls.__name__)


def literal_codec(values: tuple[object, ...], codec_of: Callable[[Any], Codec]) -> Codec:
    """Return the codec of `Literal[...]`: exactly these values, `1` not being `True`."""
    choices = ", ".join(map(repr, values))
    encoded: dict[tuple[type, object], JsonValue] = {
        (value.__class__, value): codec_of(value.__class__).encode(value) for value in values
    }
    decoded: dict[tuple[type, object], object] = {
        (json.__class__, json): key[1] for key, json in encoded.items()
    }

    def encode(value: Any) -> JsonValue:
        try:
            return encoded[value.__class__, value]
        except (KeyError, TypeError) as error:
            reason = f"expected one of {choices}"
            raise Misfit(reason, value) from error

    def decode(json: Any, _type: object = None) -> object:
        try:
            return decoded[json.__class__, json]
        except (KeyError, TypeError) as error:
            reason = f"expected one of {choices}"
            raise Misfit(reason, json) from error

    kinds = frozenset(_SCALAR_KINDS[json.__class__] for json in encoded.values())
    classes = tuple(dict.fromkeys(value.__class__ for value in values))
    return Codec(encode, decode, kinds, classes, literals=values)


_SCALAR_KINDS: Final[dict[type, Kind]] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
}
_STRING: Final = frozenset[Kind](("str",))
_INTEGER: Final = frozenset[Kind](("int",))
_DURATION_KINDS: Final = frozenset[Kind](("int", "float", "str"))

SCALARS: Final[dict[object, Codec]] = {
    None: Codec(_encode_none, _decode_none, frozenset(("null",)), (type(None),)),
    type(None): Codec(_encode_none, _decode_none, frozenset(("null",)), (type(None),)),
    bool: Codec(_encode_bool, _decode_bool, frozenset(("bool",)), (bool,)),
    int: Codec(_encode_int, _decode_int, _INTEGER, (int,)),
    float: Codec(_encode_float, _decode_float, frozenset(("float",)), (float,)),
    str: Codec(_encode_str, _decode_str, _STRING, (str,)),
    datetime: _text_codec(
        datetime, _write_datetime, datetime.fromisoformat, "an ISO 8601 date and time"
    ),
    date: _text_codec(date, _write_date, _read_date, "an ISO 8601 date"),
    time: _text_codec(time, _write_time, time.fromisoformat, "an ISO 8601 time"),
    timedelta: Codec(
        _encode_timedelta, _decode_timedelta, _DURATION_KINDS, (timedelta,), "timedelta"
    ),
    UUID: _text_codec(UUID, str, UUID, "a UUID"),
    Decimal: _text_codec(Decimal, _write_decimal, _read_decimal, "a decimal number"),
    bytes: _text_codec(bytes, _write_bytes, _read_bytes, "base64"),
    bytearray: _text_codec(bytearray, _write_bytes, _read_bytearray, "base64"),
}
"""The scalar types that every payload may hold."""
