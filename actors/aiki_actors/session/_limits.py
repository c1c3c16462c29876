"""What a worker session may hold, how long it waits, and the codes that its websocket closes with.

All bounds of both sides stand here. A bound is never met by dropping something silently: whoever
reaches one is refused, waits, or loses the session with a reason.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from attrs import frozen

PROTOCOL_VERSIONS: Final = (1,)
"""The versions of the session protocol that this release speaks."""

FRAME_BYTES: Final = 64 * 1024
"""A frame is closed once it holds so much; only its last message may go beyond."""

WHOLE_BYTES: Final = 64 * 1024
"""A message of more bytes than this travels in pieces."""

PIECE_CHARS: Final = 32 * 1024
"""Characters in a piece; written as JSON, each takes four bytes at most."""

FRAME_BYTES_MAX: Final = 256 * 1024
"""A received frame of more is refused; every receiver must take one of so much."""

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A message, put together from its pieces; larger assignments are several messages."""

ENTRIES_BYTES: Final = 32 * 1024
"""Entries are sent in messages of about so much each."""


@frozen
class SessionLimits:
    """The bounds and intervals of one session.

    Attributes:
        beat_s: seconds between two heartbeats of the worker.
        grace_s: seconds that a worker whose socket is lost has to come back with its claims.
        lease_s: seconds without a word of the worker after which its claims are lost; the worker
            itself stops its executions at two thirds of it.
        hello_s: seconds in which each side must have said the first word.
        kept_max: messages kept until the other side has acknowledged them.
        kept_bytes_max: bytes of them.
        pending_max: submissions of one worker that wait for their outcome on the server.
        ack_messages: an acknowledgement that no frame carries is sent after so many messages.
        ack_bytes: or after so many bytes.

    """

    beat_s: float = 10.0
    grace_s: float = 15.0
    lease_s: float = 30.0
    hello_s: float = 10.0
    kept_max: int = 50_000
    kept_bytes_max: int = 64 * 1024 * 1024
    pending_max: int = 10_000
    ack_messages: int = 256
    ack_bytes: int = 256 * 1024

    @property
    def worker_lease_s(self) -> float:
        """Seconds without an answered heartbeat after which the worker stops by itself."""
        return self.lease_s * 2 / 3


class CloseCode(IntEnum):
    """Why a session's websocket is closed; those from 4000 on are this protocol's own."""

    NORMAL = 1000
    """The worker has said goodbye."""
    GOING_AWAY = 1001
    """The server is stopping; come back."""
    MALFORMED = 4400
    """A frame or message is not what the protocol says."""
    UNAUTHORIZED = 4401
    """The key is missing, wrong, or not for this namespace."""
    VERSION = 4406
    """No version of the protocol is spoken by both."""
    TIMEOUT = 4408
    """The other side said nothing for too long."""
    REPLACED = 4409
    """The worker has another connection, or another worker has its id."""
    ENDED = 4410
    """The session is over: its claims are lost; begin another one."""
    TOO_LARGE = 4413
    """A frame or message is larger than the protocol allows."""
    TOO_MUCH = 4429
    """One side does not take what the other sends, or asks for too much at once."""


FATAL: Final = frozenset(
    {CloseCode.UNAUTHORIZED, CloseCode.VERSION, CloseCode.REPLACED, CloseCode.MALFORMED}
)
"""Codes in a refusal of the first word that trying again does not heal."""
