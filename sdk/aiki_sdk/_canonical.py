"""Canonical JSON (RFC 8785) and the hash of a call's input.

The hash is part of every recorded address, so **what this module computes never changes**: the test
vectors in the repository pin it. Equal values have one text: keys sorted by UTF-16 code units,
numbers written as ECMAScript writes them (`1.0` is `1`, `-0.0` is `0`, `1e21` is `1e+21`), strings
with the shortest escapes, no blanks.

One documented departure: RFC 8785 knows only IEEE doubles, so it would round integers beyond 2**53.
Python's integers are exact, so they are written in full digits.

How it is fast: orjson's sorted output *is* canonical unless it holds one of three things, which are
looked for in the bytes: a character outside the Basic Multilingual Plane (UTF-8 and UTF-16 sort
those differently), a float with an exponent, or a float that is whole. Only then the exact writer
runs. A doubt costs time, never correctness: strings that merely look so take the exact way too.
"""

import hashlib
import json
import re
from typing import Final

import orjson

from aiki_sdk._json import JsonValue, check_json, check_written

_SORTED: Final = (
    orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)

# A number follows `:`, `,` or `[`. Those that orjson and ECMAScript write alike have no exponent
# and do not end in `.0`.
_FOREIGN_NUMBER: Final = re.compile(rb"[:,\[]-?[0-9]+(?:\.0[,\]}]|(?:\.[0-9]+)?[eE])")
_ASTRAL: Final = re.compile(rb"[\xf0-\xf4]")

_encode_string = json.JSONEncoder(ensure_ascii=False).encode
_sha256 = hashlib.sha256


def canonical_json(value: JsonValue) -> bytes:
    """Write a JSON value in its one canonical form.

    Raises:
        PayloadError: if the value is not JSON or may not be stored; the message names the place.
    """
    try:
        data = orjson.dumps(value, option=_SORTED)
    except TypeError:
        check_json(value)
        return _write(value).encode()
    if b"null" in data:  # which is also what orjson makes of a NaN
        check_json(value)
    check_written(value, data)
    return data if _is_canonical(data) else _write(value).encode()


def input_hash(value: JsonValue) -> str:
    """Return the SHA-256 of the canonical form, as 64 hexadecimal digits.

    Raises:
        PayloadError: as `canonical_json`.
    """
    return _sha256(canonical_json(value)).hexdigest()


def hash_and_size(value: JsonValue) -> tuple[str, int]:
    """Return `input_hash` and the length of the canonical form in bytes, of a converted value.

    For what the payload converter made, which holds no NaN: so a null in it needs no second look.

    Raises:
        PayloadError: as `canonical_json`.
    """
    try:
        data = orjson.dumps(value, option=_SORTED)
    except TypeError:
        data = canonical_json(value)
    else:
        check_written(value, data)
        if not _is_canonical(data):
            data = _write(value).encode()
    return _sha256(data).hexdigest(), len(data)


def _is_canonical(data: bytes) -> bool:
    if data[0] not in b'{["tfn':  # a bare number
        return data.isdigit()
    if _FOREIGN_NUMBER.search(data) is not None:
        return False
    return data.isascii() or _ASTRAL.search(data) is None


def _write(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return int.__repr__(value)
        case float():
            return format_number(value)
        case str():
            return _encode_string(str(value))
        case list():
            return f"[{','.join(map(_write, value))}]"
        case dict():
            members = [
                f"{_encode_string(key)}:{_write(value[key])}"
                for key in sorted(value, key=_utf16_order)
            ]
            return f"{{{','.join(members)}}}"


def _utf16_order(text: str) -> bytes:
    # Big-endian code units compare as bytes just as they compare as numbers.
    return text.encode("utf-16-be")


def format_number(number: float) -> str:
    """Write a finite double as ECMAScript's `Number::toString` does.

    Both languages choose the shortest digits that read back the same, so only the layout differs:
    ECMAScript uses an exponent below 1e-6 and from 1e21.
    """
    if number == 0:
        return "0"  # also for -0.0
    text = float.__repr__(number)
    if "e" not in text:  # from 1e-4 to 1e16 both languages write alike, but for `.0`
        return text.removesuffix(".0")
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = text.removeprefix("-").partition("e")
    digits = mantissa.replace(".", "")
    point = int(exponent) + 1  # the value is 0.DIGITS * 10**point
    if len(digits) <= point <= 21:
        return f"{sign}{digits.ljust(point, '0')}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"
