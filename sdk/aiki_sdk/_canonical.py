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

from aiki_sdk._json import JsonValue, check_json, nul_or_deep, suspicious

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
    if suspicious(data):
        check_json(value)
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
        if nul_or_deep(data):
            check_json(value)
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
    text = float.__repr__(abs(number))
    mantissa, _, exponent_text = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS * 10**point.
    point = len(whole) + int(exponent_text or "0")
    if whole == "0":
        point -= len(fraction) - len(fraction.lstrip("0")) + 1
    digits = digits.rstrip("0")
    sign = "-" if number < 0 else ""
    return sign + _layout(digits, point)


def _layout(digits: str, point: int) -> str:
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    exponent = point - 1
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{digits[0]}{fraction}e{'+' if exponent > 0 else '-'}{abs(exponent)}"
