"""JSON from the network: what is ambiguous or cannot be stored is refused, with its place.

Stricter than RFC 8259 allows a reader to be, because two readers of one document must not see two
different values: no member twice, no NaN, no number beyond a double, no lone surrogate, no NUL.
"""

from __future__ import annotations

import json
import math
from typing import Final, Never, cast

from aiki_sdk import InvalidRequest, JsonValue, PayloadError
from aiki_sdk._json import check_json

DEPTH_MAX: Final = 72
"""A payload nests at most 64 levels, and lies inside a request's few."""


def strict_json(data: bytes | str, what: str) -> JsonValue:
    """Read a JSON document.

    Raises:
        InvalidRequest: it is not JSON, or holds something that is refused.
        PayloadError: the same, at a place that is named.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        value = cast("JsonValue", _decoder.decode(text))
    except PayloadError:
        raise
    except RecursionError as error:
        message = f"{what} nests deeper than {DEPTH_MAX} levels; flatten it"
        raise InvalidRequest(message) from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both
        message = f"{what} is not a JSON document: {error}"
        raise InvalidRequest(message) from error
    if "\\u" in text or "\x00" in text or text.count("[") + text.count("{") > DEPTH_MAX:
        check_json(value, what, depth_max=DEPTH_MAX)
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: dict[str, None] = {}
        for name, _ in pairs:
            if name in seen:
                message = f"an object has the member {name[:100]!r} twice; send it once"
                raise PayloadError(message)
            seen[name] = None
    return members


def _constant(name: str) -> Never:
    message = f"{name} is not a JSON number; send null or a string"
    raise PayloadError(message)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        message = f"{text[:50]} is beyond what a double can hold; send a string"
        raise PayloadError(message)
    return value


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_constant, parse_float=_number
)
