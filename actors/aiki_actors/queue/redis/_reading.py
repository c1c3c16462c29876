"""How a worker's thread reads new messages: which streams are asked, in which order, for how many.

Streams are asked by urgency, and within a class in turn: a stream that gave something goes behind
the others. `COUNT` of `XREADGROUP` holds for each stream, so a sweep asks for shares of what is
free, and again where there was more; it never takes more than asked for. Only when nothing is there
one blocking read waits on all streams at once.

A class that was not asked for as long as `LOW_WAIT_S`, because the more urgent ones took
everything, is asked first once; so a flood of urgent runs does not starve the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import define, field, frozen

from aiki_actors.queue._served import Served
from aiki_sdk.protocol import Priority

from ._connection import Reply, Wire
from ._keys import GROUP, keep, stream_of
from ._messages import Message, decode
from ._trouble import RedisFailed, Trouble

LOW_WAIT_S: Final = 60.0
"""How long a class of streams waits behind more urgent ones before it is asked first."""

URGENCY: Final = (Priority.HIGH, Priority.NORMAL, Priority.LOW)


@frozen
class Batch:
    """What was read.

    Attributes:
        messages: in the order in which they are to be claimed.
        strange: stream and id of what is no message of ours.
        asked: classes that were asked.

    """

    messages: list[Message]
    strange: list[tuple[str, str]]
    asked: list[Priority] = field(factory=lambda: list[Priority]())


@define(eq=False)
class Rotation:
    """The streams that a worker serves, in the order in which they are asked next."""

    _streams: dict[Priority, list[str]] = field(
        factory=lambda: {priority: list[str]() for priority in URGENCY}, init=False
    )
    _asked_s: dict[Priority, float] = field(factory=lambda: dict.fromkeys(URGENCY, 0.0), init=False)

    def serve(self, served: Served, now_s: float) -> None:
        """Ask the streams of these workflows and pools from now on."""
        keys = served.queue_keys()
        self._streams = {
            priority: [stream_of(key, priority) for key in keys] for priority in URGENCY
        }
        self._asked_s = dict.fromkeys(URGENCY, now_s)

    def all(self) -> list[str]:
        """List every stream."""
        return [stream for priority in URGENCY for stream in self._streams[priority]]

    def order(self, now_s: float, without: Iterable[str] = ()) -> dict[Priority, list[str]]:
        """Return the classes in the order to ask them, each with its streams in turn."""
        left_out = frozenset(without)
        waited = [each for each in URGENCY if now_s - self._asked_s[each] >= LOW_WAIT_S]
        first = sorted(waited, key=lambda each: self._asked_s[each])[:1]
        rest = [each for each in URGENCY if each not in first]
        return {
            each: [stream for stream in self._streams[each] if stream not in left_out]
            for each in (*first, *rest)
        }

    def note(self, batch: Batch, now_s: float) -> None:
        """Put the streams that gave something behind those that did not."""
        for priority in batch.asked:
            self._asked_s[priority] = now_s
        gave = {message.stream: None for message in batch.messages}
        if gave:
            for priority, streams in self._streams.items():
                last = [stream for stream in gave if stream in streams]
                if last:
                    self._streams[priority] = [s for s in streams if s not in gave] + last


def ensure_groups(wire: Wire, streams: Sequence[str], *, keep_s: float) -> list[str]:
    """Create the group of each stream that has none, from its beginning; returns which were made.

    A stream that is made goes after `keep_s` seconds, unless somebody serves it or puts into it.

    From its beginning, not its end: what was published before anybody read counts.

    Raises:
        RedisFailed: the connection failed, or Redis takes no writes.

    """
    commands = [("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM") for stream in streams]
    made: list[str] = []
    for stream, reply in zip(streams, wire.exchange(commands), strict=True):
        if not isinstance(reply, RedisFailed):
            made.append(stream)
        elif reply.trouble is not Trouble.WRONG_TYPE and "BUSYGROUP" not in reply.message:
            raise reply
    if made:
        wire.exchange([keep(stream, keep_s) for stream in made])
    return made


def wrong_streams(wire: Wire, streams: Sequence[str]) -> list[str]:
    """Return which of these keys hold something that is no stream."""
    replies = wire.exchange([("TYPE", stream) for stream in streams])
    return [
        stream
        for stream, kind in zip(streams, replies, strict=True)
        if kind not in (b"stream", b"none")
    ]


def read(
    wire: Wire,
    *,
    consumer: str,
    classes: dict[Priority, list[str]],
    free: int,
    block_s: float,
) -> Batch:
    """Read new messages for as much as is free, waiting for the first if there is none.

    The blocking read asks each stream for one, so it may bring as many as there are streams; then
    the rest is kept for when there is room.

    Raises:
        RedisFailed: the connection failed, or a stream has no group or is no stream.

    """
    batch = Batch([], [])
    left = free
    for priority, streams in classes.items():
        if left <= 0:
            break
        batch.asked.append(priority)
        left -= _sweep(wire, consumer, streams, left, batch)
    everything = [stream for streams in classes.values() for stream in streams]
    if left == free and everything:
        wait_ms = max(1, round(block_s * 1000))
        _ask(wire, consumer, everything, 1, batch, ("BLOCK", wait_ms))
    return batch


def _sweep(wire: Wire, consumer: str, streams: list[str], wanted: int, batch: Batch) -> int:
    """Read up to `wanted` from these streams without waiting; returns how many there were."""
    found = 0
    hot = streams
    while hot and found < wanted:
        left = wanted - found
        chunk, rest = hot[:left], hot[left:]
        share = left // len(chunk)
        given = _ask(wire, consumer, chunk, share, batch, ())
        found += sum(given.values())
        # A stream that gave its whole share may have more.
        hot = rest + [stream for stream in chunk if given.get(stream, 0) >= share]
    return found


def _ask(
    wire: Wire,
    consumer: str,
    streams: list[str],
    count: int,
    batch: Batch,
    blocking: tuple[str | int, ...],
) -> dict[str, int]:
    """Send one XREADGROUP; returns how many entries each stream gave."""
    ids = [">"] * len(streams)
    who = ("GROUP", GROUP, consumer)
    reply = wire.call("XREADGROUP", *who, "COUNT", count, *blocking, "STREAMS", *streams, *ids)
    given: dict[str, int] = {}
    if not isinstance(reply, list):
        return given
    for item in reply:
        assert isinstance(item, list), "XREADGROUP gives pairs"
        assert isinstance(item[0], bytes), "a pair of XREADGROUP begins with its stream"
        stream = item[0].decode()
        given[stream] = take_entries(stream, item[1], batch)
    return given


def take_entries(stream: str, entries: Reply, batch: Batch) -> int:
    """Sort the entries of one stream into messages and what is none; returns how many there are.

    An entry that was deleted while it was pending comes without fields, or not at all.
    """
    if not isinstance(entries, list):
        return 0
    number = 0
    for entry in entries:
        if not isinstance(entry, list):
            continue
        number += 1
        message_id, fields = entry[0], entry[1]
        assert isinstance(message_id, bytes), "an entry of a stream begins with its id"
        message = decode(stream, message_id.decode(), _pairs(fields))
        if message is None:
            batch.strange.append((stream, message_id.decode()))
        else:
            batch.messages.append(message)
    return number


def _pairs(fields: Reply) -> dict[bytes, bytes]:
    if not isinstance(fields, list):
        return {}
    texts = [each for each in fields if isinstance(each, bytes)]
    return dict(zip(texts[::2], texts[1::2], strict=False))
