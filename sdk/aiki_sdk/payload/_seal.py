"""Sealing: payloads and errors behind a `PayloadCodec`, and JSON that may hold such.

A sealed payload is an object with the one key `$sealed`. A sealed error keeps its type, its code
and whether to try again, for these decide what happens next; all it says is in its details.
"""

import binascii
from typing import Final, cast

from aiki_sdk._error_info import ErrorInfo
from aiki_sdk._errors import PayloadError
from aiki_sdk._json import JsonValue, dumps, loads
from aiki_sdk.payload._encode import PayloadCodec

SEALED_KEY: Final = "$sealed"
SEALED_MESSAGE: Final = "(sealed)"


def seal(json: JsonValue, codec: PayloadCodec | None) -> JsonValue:
    """Pass a payload through a codec; without one it stays as it is."""
    if codec is None:
        return json
    sealed = codec.encode(dumps(json))
    return {SEALED_KEY: binascii.b2a_base64(sealed, newline=False).decode("ascii")}


def is_sealed(json: object) -> bool:
    """Tell whether a payload went through a codec; then only who has the codec can check it."""
    return isinstance(json, dict) and cast("dict[str, object]", json).keys() == {SEALED_KEY}


def unseal(json: JsonValue, codec: PayloadCodec | None) -> JsonValue:
    """Undo `seal`; what was not sealed stays as it is, so that a codec can be added later.

    Raises:
        PayloadError: if it is sealed and there is no codec, or the codec refuses it.
    """
    if not isinstance(json, dict) or not is_sealed(json):
        return json
    if codec is None:
        message = "the payload is sealed by a PayloadCodec; pass the same codec here"
        raise PayloadError(message)
    try:
        return loads(codec.decode(binascii.a2b_base64(str(json[SEALED_KEY]), strict_mode=True)))
    except ValueError as error:
        message = f"the PayloadCodec cannot open the payload: {error}"
        raise PayloadError(message) from error


def seal_error(error: ErrorInfo, codec: PayloadCodec | None) -> ErrorInfo:
    """Seal all that an error says: message, traceback, causes, details."""
    if codec is None or _is_sealed_error(error):
        return error
    return ErrorInfo(
        type=error.type,
        message=SEALED_MESSAGE,
        code=error.code,
        retryable=error.retryable,
        details=seal(error.to_json(), codec),
    )


def unseal_error(error: ErrorInfo, codec: PayloadCodec | None) -> ErrorInfo:
    """Undo `seal_error`; what was not sealed stays as it is.

    Raises:
        PayloadError: as `unseal`.
    """
    if not _is_sealed_error(error):
        return error
    opened = unseal(error.details, codec)
    return ErrorInfo.from_json(opened) if isinstance(opened, dict) else error


def _is_sealed_error(error: ErrorInfo) -> bool:
    return error.message == SEALED_MESSAGE and is_sealed(error.details)


def unseal_within(json: JsonValue, codec: PayloadCodec | None) -> JsonValue:
    """Open whatever is sealed inside a JSON value: payloads and errors, at any depth.

    What was inside a seal is returned as it is.

    Raises:
        PayloadError: as `unseal`.
    """
    if isinstance(json, list):
        return [unseal_within(item, codec) for item in json]
    if not isinstance(json, dict):
        return json
    if is_sealed(json):
        return unseal(json, codec)
    if json.get("message") == SEALED_MESSAGE and is_sealed(json.get("details")):
        return unseal(json["details"], codec)
    return {key: unseal_within(value, codec) for key, value in json.items()}
