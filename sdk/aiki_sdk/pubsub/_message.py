"""What is published and where: one JSON object per update, on one channel per namespace.

The object is the wire form of `Update` with one field more, `v`, the version of the message. A
reader passes over fields that it does not know and over versions above its own.
"""

from typing import Final
from urllib.parse import quote

from aiki_sdk._errors import PayloadError
from aiki_sdk._json import JsonValue, dumps, loads
from aiki_sdk._request_errors import InvalidRequest
from aiki_sdk.protocol import Update, from_wire, to_wire

MESSAGE_VERSION: Final = 1


def updates_channel(namespace: str) -> str:
    """Return the channel on which the updates of a namespace are published."""
    return f"aiki:{quote(namespace, safe='/+')}:updates"


def update_message(update: Update) -> bytes:
    """Write an update as it is published."""
    document = to_wire(update)
    assert isinstance(document, dict), "an update is an object"
    return dumps({"v": MESSAGE_VERSION, **document})


def read_update(message: bytes) -> Update | None:
    """Read a published update; None if it is none, or one of a later version."""
    try:
        document = loads(message)
        if not isinstance(document, dict) or document.get("v") != MESSAGE_VERSION:
            return None
        known: JsonValue = {name: document[name] for name in _FIELDS if name in document}
        return from_wire(known, Update, "update")
    except (InvalidRequest, PayloadError, ValueError):
        return None


_FIELDS: Final[tuple[str, ...]] = (
    "run_id",
    "seq",
    "at",
    "kind",
    "status",
    "workflow",
    "reference_id",
    "body",
    "live",
)
