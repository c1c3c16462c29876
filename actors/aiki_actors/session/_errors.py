"""How a session's connection ends otherwise than by its owner's wish."""

from __future__ import annotations

from typing import ClassVar

from aiki_sdk import AikiError

REASON_BYTES_MAX = 120
"""What a websocket's close frame can carry, less two bytes for the code and a little."""


class SessionClosed(AikiError):
    """A connection was closed, by either side, with a code and a reason."""

    code: ClassVar[str] = "session-closed"
    retryable: ClassVar[bool] = True

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(
            f"the worker session's connection was closed ({close_code}): {reason}",
            details={"close_code": int(close_code), "reason": reason},
        )

    @property
    def close_code(self) -> int:
        """The websocket's close code."""
        return self._number("close_code")

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        return self._text("reason")


class ProtocolError(SessionClosed):
    """The other side broke the protocol; the connection is closed with this code and reason."""

    code: ClassVar[str] = "session-protocol"
    retryable: ClassVar[bool] = False


class KeptTooMuch(AikiError):
    """More messages are kept for the other side than it may fall behind by."""

    code: ClassVar[str] = "session-too-slow"


def close_reason(text: str) -> str:
    """Return a reason short enough for a close frame."""
    return text.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
