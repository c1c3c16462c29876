"""The part of Redis' protocol (RESP2) that a subscriber needs: no I/O, bytes in, values out."""

from typing import Final, TypeAlias

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""More than any update: what claims to be longer is not what we speak to."""

_LINE_BYTES_MAX: Final = 64 * 1024

Value: TypeAlias = "bytes | int | Refusal | list[Value] | None"


class Refusal:
    """An error that Redis answered with."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class NotRedis(Exception):
    """What came is not the protocol."""


def pack(*words: str) -> bytes:
    """Write one command."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


class Reader:
    """Takes bytes as they come and gives whole values; keeps what is not whole yet."""

    __slots__ = ("_at", "_buffer", "_wanted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        # Nothing can be whole before so many bytes are there; spares reading long ones anew.
        self._wanted = 0

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._buffer += data

    def take(self) -> tuple[Value] | None:
        """Return the next whole value, in a tuple; None: there is none yet.

        Raises:
            NotRedis: it cannot become one.

        """
        if len(self._buffer) < self._wanted:
            return None
        self._at = 0
        try:
            value = self._value(0)
        except _More as more:
            self._wanted = more.wanted
            return None
        del self._buffer[: self._at]
        self._wanted = 0
        return (value,)

    def _value(self, depth: int) -> Value:
        if depth > 4:
            raise NotRedis("a reply is nested too deeply")
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Refusal(rest.decode(errors="replace"))
        if kind not in (b":", b"$", b"*"):
            raise NotRedis(f"a reply begins with {line[:20]!r}")
        try:
            number = int(rest)
        except ValueError:
            raise NotRedis(f"a reply begins with {line[:20]!r}") from None
        if kind == b":":
            return number
        if number < 0:
            return None
        if number > MESSAGE_BYTES_MAX:
            raise NotRedis(f"a reply of {number} bytes is too long")
        if kind == b"$":
            return self._bytes(number)
        return [self._value(depth + 1) for _ in range(number)]

    def _line(self) -> bytes:
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > _LINE_BYTES_MAX:
                raise NotRedis("a line has no end")
            raise _More(len(self._buffer) + 1)
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line

    def _bytes(self, number: int) -> bytes:
        end = self._at + number
        if len(self._buffer) < end + 2:
            raise _More(end + 2)
        data = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return data


class _More(Exception):
    """A value is not whole yet."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted = wanted
