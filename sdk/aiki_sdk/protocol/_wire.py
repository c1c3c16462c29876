"""Wire values as JSON and back: one form for HTTP, websockets, streams and the control socket.

The form is that of payloads: objects by field name, times in ISO 8601, durations in seconds. What
is read is checked by the constructors of the wire types, whoever sent it.
"""

from typing import Final, TypeVar, cast

from aiki_sdk._error_info import ErrorInfo
from aiki_sdk._json import JsonValue
from aiki_sdk.payload import PayloadConverter

T = TypeVar("T")

_converter: Final = PayloadConverter()
_converter.register(
    ErrorInfo, lambda error: cast("ErrorInfo", error).to_json(), lambda json: _error_info(json)
)


def _error_info(json: JsonValue) -> ErrorInfo:
    if not isinstance(json, dict):
        message = f"expected an object, found {type(json).__name__}"
        raise ValueError(message)  # noqa: TRY004  (the converter's word for "does not fit")
    return ErrorInfo.from_json(json)


def to_wire(value: object) -> JsonValue:
    """Return a wire value as JSON."""
    return _converter.to_json(value)


def from_wire(json: JsonValue, cls: type[T], what: str) -> T:
    """Read a wire value.

    Raises:
        PayloadError: naming `what` and the place in it that does not fit.
        InvalidRequest: the value is one that is not valid.
    """
    return cast("T", _converter.from_json(json, cls, path=what))
