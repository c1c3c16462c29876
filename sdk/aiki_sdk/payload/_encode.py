"""From a value to a payload that may be stored: converted, checked, within the limit.

A `PayloadCodec` sits between the converted payload and everything that stores or carries it: it can
encrypt or compress. What it makes travels as a JSON object with the one key `$sealed`.
"""

import logging
from typing import Any, Final, Protocol

from aiki_sdk._errors import PayloadTooLarge
from aiki_sdk._json import JsonValue, check_written, dumps_finite
from aiki_sdk.payload._converter import CONVERTER, PayloadConverter

PAYLOAD_BYTES_MAX: Final = 2 * 1024 * 1024
"""The default limit of one payload; Temporal's is the same."""

PAYLOAD_BYTES_WARN: Final = 256 * 1024
"""From here on a payload is logged: a journal of such is slow to replay long before the limit."""

_SMALL: Final = 1 << 63

_log = logging.getLogger("aiki.payload")


class PayloadCodec(Protocol):
    """Encrypts or compresses payloads. Both methods are called on the worker and on the client."""

    def encode(self, data: bytes) -> bytes:
        """Turn the JSON of a payload into what is stored."""
        ...

    def decode(self, data: bytes) -> bytes:
        """Turn what is stored back into JSON; a ValueError says that it cannot."""
        ...


def encode_payload(
    value: object,
    type_: Any = Any,
    *,
    limit_bytes: int = PAYLOAD_BYTES_MAX,
    what: str = "value",
    converter: PayloadConverter = CONVERTER,
) -> JsonValue:
    """Convert a value and check that it may be stored.

    Args:
        value: what to convert.
        type_: its declared type.
        limit_bytes: the most that it may take as JSON.
        what: what to call it in errors and in the log: a parameter, "the result of task 'x'".
        converter: the rules; the shared ones unless told.

    Raises:
        PayloadError: if it cannot be converted, or holds what JSON cannot.
        PayloadTooLarge: if it is larger than the limit.
    """
    json = converter.to_json(value, type_, path=what)
    if json is None or json is True or json is False:
        return json
    if type(json) is int and -_SMALL < json < _SMALL:  # the commonest, and never too large
        return json
    data = dumps_finite(json)
    check_written(json, data)
    check_payload_size(len(data), limit_bytes=limit_bytes, what=what)
    return json


def check_payload_size(
    size_bytes: int, *, limit_bytes: int = PAYLOAD_BYTES_MAX, what: str = "value"
) -> None:
    """Check the size of a payload that is already written.

    Raises:
        PayloadTooLarge: if it is larger than the limit.
    """
    if size_bytes >= PAYLOAD_BYTES_WARN or size_bytes > limit_bytes:
        if size_bytes > limit_bytes:
            raise PayloadTooLarge(what, size_bytes, limit_bytes)
        _log.warning("%s is %d bytes; the limit is %d", what, size_bytes, limit_bytes)
