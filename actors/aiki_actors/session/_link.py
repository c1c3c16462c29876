"""One side of a session's messages: numbered, acknowledged, and each delivered exactly once.

Pure: bytes go in, bytes come out; no socket, no clock. A *frame* is a JSON object:

    {"ack": 12, "first": 5, "messages": […], "beat": 3, "echo": 2}

* `messages` are JSON arrays, numbered on from `first`; numbers begin at 1 and last as long as the
  session, over any number of connections.
* `ack` is the number up to which everything was received. What is not acknowledged is kept, and
  sent again on the next connection. What was received already is passed over there.
* `beat` is a heartbeat's number, `echo` the number of the one that is answered.
* A message that is too long for a frame travels as pieces: `["piece", text, last]`.

Invariants: messages are delivered in order of their number, each once; what is kept is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import Factory, define, field, frozen

from aiki_sdk import JsonValue, LimitExceeded, PayloadError, dumps, loads

from ._errors import KeptTooMuch, ProtocolError
from ._limits import (
    FRAME_BYTES,
    FRAME_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PIECE_CHARS,
    WHOLE_BYTES,
    CloseCode,
    SessionLimits,
)

PIECE: Final = "piece"
_MARK: Final = b" "  # stands before a document that holds integers of more than 64 bits
_NUMBER_MAX: Final = 2**53


@frozen
class Taken:
    """What a frame brought: new messages in order, a heartbeat to be answered, or an answer."""

    messages: list[list[JsonValue]]
    beat: int | None = None
    echo: int | None = None


@define(eq=False)
class Link:
    """The messages of one session in both directions, seen from one side.

    Attributes:
        limits: how much may be kept.
        wake: called whenever a frame has become possible.
        received: number of the last message that was received.

    """

    limits: SessionLimits = Factory(SessionLimits)
    wake: Callable[[], None] = field(default=lambda: None)
    received: int = field(default=0, init=False)
    kept_bytes: int = field(default=0, init=False)
    _sent: deque[bytes] = field(factory=lambda: deque[bytes](), init=False)
    _unsent: deque[bytes] = field(factory=lambda: deque[bytes](), init=False)
    _acked: int = field(default=0, init=False)  # the other side has everything up to here
    _told: int = field(default=0, init=False)  # what the other side was told to be received
    _owed_bytes: int = field(default=0, init=False)
    _beat: int | None = field(default=None, init=False)
    _echo: int | None = field(default=None, init=False)
    _pieces: list[str] = field(factory=lambda: list[str](), init=False)
    _piece_bytes: int = field(default=0, init=False)

    @property
    def kept(self) -> int:
        """How many messages are kept because they are not acknowledged."""
        return len(self._sent) + len(self._unsent)

    @property
    def full(self) -> bool:
        """Whether one more message would be too much."""
        return self.kept >= self.limits.kept_max or self.kept_bytes >= self.limits.kept_bytes_max

    # -- sending ----------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Send a message, a JSON array as a document.

        Raises:
            KeptTooMuch: the other side has fallen too far behind; the session is to be given up.
            LimitExceeded: the message is larger than one may be.

        """
        if len(message) > MESSAGE_BYTES_MAX:
            fix = "use smaller payloads, or do less at once"
            raise LimitExceeded("bytes of a message", MESSAGE_BYTES_MAX, len(message), fix)
        if self.full:
            raise KeptTooMuch(
                f"{self.kept} messages of {self.kept_bytes} bytes wait to be acknowledged; at most "
                f"{self.limits.kept_max} of {self.limits.kept_bytes_max} bytes may"
            )
        if len(message) <= WHOLE_BYTES:
            self._unsent.append(message)
            self.kept_bytes += len(message)
        else:
            self._send_pieces(message)
        self.wake()

    def _send_pieces(self, message: bytes) -> None:
        text = message.decode()
        for start in range(0, len(text), PIECE_CHARS):
            part = text[start : start + PIECE_CHARS]
            piece = dumps([PIECE, part, start + PIECE_CHARS >= len(text)])
            self._unsent.append(piece)
            self.kept_bytes += len(piece)

    def beat(self, number: int) -> None:
        """Ask for a sign of life with the next frame."""
        self._beat = number
        self.wake()

    def next_frame(self) -> bytes | None:
        """Return the next frame of this connection; None if there is nothing to say."""
        messages = self._next_messages()
        if not messages and self._beat is None and self._echo is None and not self._ack_is_due():
            return None
        self._told, self._owed_bytes = self.received, 0
        parts = [b'"ack":%d' % self.received]
        if self._beat is not None:
            parts.append(b'"beat":%d' % self._beat)
        if self._echo is not None:
            parts.append(b'"echo":%d' % self._echo)
        self._beat = self._echo = None
        mark = b""
        if messages:
            first = self._acked + len(self._sent) - len(messages) + 1
            for at, message in enumerate(messages):
                if message[:1] == _MARK:
                    mark, messages[at] = _MARK, message[1:]
            parts.append(b'"first":%d,"messages":[%b]' % (first, b",".join(messages)))
        return b"%b{%b}" % (mark, b",".join(parts))

    def _next_messages(self) -> list[bytes]:
        messages: list[bytes] = []
        size = 0
        unsent = self._unsent
        while unsent and size < FRAME_BYTES:
            message = unsent.popleft()
            self._sent.append(message)
            messages.append(message)
            size += len(message)
        return messages

    def _ack_is_due(self) -> bool:
        owed = self.received - self._told
        return owed >= self.limits.ack_messages or (
            owed > 0 and self._owed_bytes >= self.limits.ack_bytes
        )

    # -- receiving --------------------------------------------------------------------------

    def take(self, frame: bytes) -> Taken:
        """Take a frame in.

        Raises:
            ProtocolError: it is not what the protocol says; nothing of it was taken.

        """
        document = read_object(frame)
        self._take_ack(_number(document, "ack", 0))
        raw = document.get("messages", [])
        if not isinstance(raw, list):
            raise _malformed("messages of a frame are no array")
        fresh: list[list[JsonValue]] = []
        if raw:
            skip = self.received - _number(document, "first", 1) + 1
            if skip < 0:
                raise _malformed(f"message {self.received + 1} is missing before {-skip} others")
            for message in raw[skip:]:
                self.received += 1
                self._take_message(message, fresh)
            self._owed_bytes += len(frame)
            if self._ack_is_due():
                self.wake()
        beat, echo = _optional(document, "beat"), _optional(document, "echo")
        if beat is not None:
            self._echo = beat
            self.wake()
        return Taken(fresh, beat, echo)

    def _take_ack(self, ack: int) -> None:
        if ack > self._acked + len(self._sent):
            raise _malformed(f"message {ack} is acknowledged, which was never sent")
        while self._acked < ack:
            self.kept_bytes -= len(self._sent.popleft())
            self._acked += 1

    def _take_message(self, message: JsonValue, fresh: list[list[JsonValue]]) -> None:
        if not isinstance(message, list) or not message:
            raise _malformed("a message is no array")
        if message[0] != PIECE:
            if self._pieces:
                raise _malformed("a message stands between the pieces of another")
            fresh.append(message)
            return
        match message[1:]:
            case [str(part), bool(last)]:
                pass
            case _:
                raise _malformed("a piece is not [text, last]")
        self._pieces.append(part)
        self._piece_bytes += len(part)
        if self._piece_bytes > MESSAGE_BYTES_MAX:
            reason = f"a message has more than {MESSAGE_BYTES_MAX} bytes"
            raise ProtocolError(CloseCode.TOO_LARGE, reason)
        if last:
            text, self._pieces, self._piece_bytes = "".join(self._pieces), [], 0
            self._take_message(_whole(text), fresh)

    # -- connections ------------------------------------------------------------------------

    def connected(self, received: int) -> None:
        """Begin on a new connection, whose other side has received up to this number.

        Raises:
            ProtocolError: it cannot have: the two sides do not speak of one session.

        """
        if not self._acked <= received <= self._acked + len(self._sent):
            raise _malformed(
                f"the other side has received {received} messages of this session; it was sent "
                f"{self._acked + len(self._sent)} and has acknowledged {self._acked}"
            )
        self._take_ack(received)
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self._beat = self._echo = None
        self._told, self._owed_bytes = self.received, 0
        if self._unsent:
            self.wake()


def _whole(text: str) -> JsonValue:
    try:
        return loads(text)
    except PayloadError as error:
        raise _malformed(f"a message in pieces is not JSON: {error}") from error


def read_object(frame: bytes) -> dict[str, JsonValue]:
    """Read a frame, or a first word: a JSON object.

    Raises:
        ProtocolError: it is none, or too large.

    """
    if len(frame) > FRAME_BYTES_MAX:
        reason = f"a frame has {len(frame)} bytes, at most {FRAME_BYTES_MAX} are allowed"
        raise ProtocolError(CloseCode.TOO_LARGE, reason)
    try:
        document = loads(frame)
    except PayloadError as error:
        raise _malformed(f"a frame is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _malformed("a frame is no object")
    return document


def _number(document: dict[str, JsonValue], name: str, at_least: int) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _NUMBER_MAX:
        raise _malformed(f"{name!r} of a frame is not a number from 0 on")
    if value < at_least:
        raise _malformed(f"{name!r} of a frame is below {at_least}")
    return value


def _optional(document: dict[str, JsonValue], name: str) -> int | None:
    return _number(document, name, 0) if name in document else None


def _malformed(reason: str) -> ProtocolError:
    return ProtocolError(CloseCode.MALFORMED, reason)
