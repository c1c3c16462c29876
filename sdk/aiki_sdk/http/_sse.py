"""Server-sent events: bytes in any pieces become events, by the rules of the HTML standard.

Pure, and bounded: an event that does not end within `EVENT_BYTES_MAX` is refused.
"""

from typing import Final

from attrs import define, field, frozen

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Several payloads of the largest size, quoted; whatever is longer is not one of our events."""


class StreamTooLong(Exception):
    """An event is longer than any that a server sends."""


@frozen
class SentEvent:
    """One event: its type, its data, and the last id that the stream told up to it."""

    event: str
    data: str
    last_id: str = ""


@define(eq=False)
class EventReader:
    """Takes bytes in and gives events out."""

    _rest: bytearray = field(factory=bytearray, init=False)
    _searched: int = field(default=0, init=False)
    _event: str = field(default="", init=False)
    _last_id: str = field(default="", init=False)
    _data: list[str] = field(factory=lambda: list[str](), init=False)
    _held: int = field(default=0, init=False)  # bytes of `_data`

    def feed(self, chunk: bytes) -> list[SentEvent]:
        """Return the events that are complete with these bytes.

        Raises:
            StreamTooLong: an event does not end.
        """
        self._rest += chunk
        events: list[SentEvent] = []
        for line in self._lines():
            if line:
                self._take(line)
                continue
            if self._data:
                events.append(self._made())
            self._event, self._data, self._held = "", [], 0
        if len(self._rest) + self._held > EVENT_BYTES_MAX:
            message = f"an event of the stream is longer than {EVENT_BYTES_MAX:,} bytes"
            raise StreamTooLong(message)
        return events

    def _lines(self) -> list[str]:
        """Take the complete lines; what was looked through before is not looked through again."""
        end = self._rest.rfind(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._rest)
            return []
        text = bytes(self._rest[:end]).decode("utf-8", "replace")
        del self._rest[: end + 1]
        self._searched = len(self._rest)
        return [line.removesuffix("\r") for line in text.split("\n")]

    def _made(self) -> SentEvent:
        return SentEvent(self._event or "message", "\n".join(self._data), self._last_id)

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._held += len(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._last_id = value
