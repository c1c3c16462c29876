"""What a worker's thread does with messages that were delivered: all but reading new ones.

Acknowledge, refresh, take over, tidy up. Each is a function on the wire that may be repeated
without harm, since every message is only a hint: the worst that a failure half-way leaves behind
is a message that is delivered once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import field, frozen

from ._connection import Command, Reply, Wire
from ._keys import GROUP, keep
from ._messages import Message
from ._reading import Batch, take_entries
from ._trouble import RedisFailed, Trouble

Place = tuple[str, str]
"""Stream and id of a message."""

LISTED_MAX: Final = 10_000
"""Pending messages of one worker in one stream that are looked at; far more than it can hold."""


@frozen
class Taken:
    """What was taken over.

    Attributes:
        batch: the messages, with how often each was delivered.
        lost: how many entries each stream has lost that were pending: trimmed or deleted.
        cursors: where the scan of each stream goes on.

    """

    batch: Batch
    lost: dict[str, int] = field(factory=lambda: dict[str, int]())
    cursors: dict[str, str] = field(factory=lambda: dict[str, str]())


def by_stream(places: Iterable[Place]) -> dict[str, list[str]]:
    """Group messages by their stream, in order."""
    grouped: dict[str, list[str]] = {}
    for stream, message_id in places:
        grouped.setdefault(stream, []).append(message_id)
    return grouped


def acknowledge(wire: Wire, places: Sequence[Place]) -> None:
    """Take messages out of the group and out of the stream, together.

    Raises:
        RedisFailed: they may be acknowledged or not.

    """
    commands: list[Command] = []
    for stream, ids in by_stream(places).items():
        commands.extend(
            (("MULTI",), ("XACK", stream, GROUP, *ids), ("XDEL", stream, *ids), ("EXEC",))
        )
    _raise_first(wire.exchange(commands))


def refresh(wire: Wire, consumer: str, places: Sequence[Place]) -> list[Place]:
    """Show that these messages are held; returns those that are not this worker's any more.

    Only what is still pending for this worker is claimed anew, so that what another took over is
    not torn from it. `JUSTID` leaves the number of deliveries as it is.

    Raises:
        RedisFailed: some may be refreshed.

    """
    grouped = by_stream(places)
    listed = wire.exchange(
        [("XPENDING", stream, GROUP, "-", "+", LISTED_MAX, consumer) for stream in grouped]
    )
    gone: list[Place] = []
    commands: list[Command] = []
    for (stream, ids), reply in zip(grouped.items(), listed, strict=True):
        if isinstance(reply, RedisFailed) and reply.trouble not in _NOTHING_THERE:
            raise reply
        own = {row[0] for row in rows(reply)}
        gone.extend((stream, each) for each in ids if each.encode() not in own)
        kept = [each for each in ids if each.encode() in own]
        if kept:
            commands.append(("XCLAIM", stream, GROUP, consumer, 0, *kept, "JUSTID"))
    if commands:
        _raise_first(wire.exchange(commands))
    return gone


def take_over(
    wire: Wire,
    consumer: str,
    streams: Sequence[str],
    *,
    cursors: dict[str, str],
    idle_s: float,
    limit: int,
) -> Taken:
    """Take up to `limit` messages whose workers showed no sign of life for `idle_s`.

    Raises:
        RedisFailed: some may be taken over, and are found again when they are idle.

    """
    taken = Taken(Batch([], []), cursors=dict(cursors))
    counts = wire.exchange([("XPENDING", stream, GROUP) for stream in streams])
    for stream, summary in zip(streams, counts, strict=True):
        left = limit - len(taken.batch.messages)
        if left <= 0:
            break
        if isinstance(summary, list) and isinstance(summary[0], int) and summary[0] > 0:
            _take_from(wire, consumer, stream, taken, idle_s, left)
    _count_deliveries(wire, taken.batch)
    return taken


def _take_from(
    wire: Wire, consumer: str, stream: str, taken: Taken, idle_s: float, limit: int
) -> None:
    """Scan one page of one stream; the next call goes on behind it."""
    idle_ms = round(idle_s * 1000)
    cursor = taken.cursors.get(stream, "0-0")
    try:
        reply = wire.call("XAUTOCLAIM", stream, GROUP, consumer, idle_ms, cursor, "COUNT", limit)
    except RedisFailed as failure:
        if failure.trouble in _NOTHING_THERE:
            return
        raise
    assert isinstance(reply, list), "XAUTOCLAIM gives a list"
    assert isinstance(reply[0], bytes), "what XAUTOCLAIM gives begins with a cursor"
    taken.cursors[stream] = reply[0].decode()
    take_entries(stream, reply[1], taken.batch)
    deleted = reply[2] if len(reply) > 2 else None
    lost = len(deleted) if isinstance(deleted, list) else 0
    if isinstance(reply[1], list) and None in reply[1]:
        # Before 7.0 a lost entry comes as null and stays pending, for this worker now.
        lost += _forget_deleted(wire, consumer, stream)
    if lost:
        taken.lost[stream] = taken.lost.get(stream, 0) + lost


def _forget_deleted(wire: Wire, consumer: str, stream: str) -> int:
    """Acknowledge what is pending for this worker and does not stand in the stream any more."""
    pending = wire.call("XPENDING", stream, GROUP, "-", "+", LISTED_MAX, consumer)
    ids = [row[0] for row in rows(pending)]
    found = wire.exchange([("XRANGE", stream, each, each) for each in ids])
    lost = [each for each, entry in zip(ids, found, strict=True) if entry == []]
    if lost:
        wire.call("XACK", stream, GROUP, *lost)
    return len(lost)


def _count_deliveries(wire: Wire, batch: Batch) -> None:
    """Say with each message how often it was delivered."""
    if not batch.messages:
        return
    asked = [("XPENDING", each.stream, GROUP, each.id, each.id, 1) for each in batch.messages]
    for index, reply in enumerate(wire.exchange(asked)):
        row = next(iter(rows(reply)), None)
        if row is not None:
            batch.messages[index] = batch.messages[index].delivered(row[3])


def tidy(
    wire: Wire, streams: Sequence[str], *, dead_after_s: float, keep_s: float
) -> tuple[int, int]:
    """Keep the streams for another `keep_s`; remove consumers that are silent with nothing pending.

    Returns how many were removed, and how many messages were deleted with them, because they were
    delivered between the look and the removal: those nobody is told of again but by the server.

    Raises:
        RedisFailed: some may be removed.

    """
    kept: list[Command] = [keep(stream, keep_s) for stream in streams]
    looks: list[Command] = [("XINFO", "CONSUMERS", stream, GROUP) for stream in streams]
    listed = wire.exchange([*looks, *kept])[: len(looks)]
    commands: list[Command] = []
    for stream, reply in zip(streams, listed, strict=True):
        for name, pending, idle_ms in _consumers(reply):
            if pending == 0 and idle_ms > dead_after_s * 1000:
                commands.append(("XGROUP", "DELCONSUMER", stream, GROUP, name))
    replies = wire.exchange(commands) if commands else []
    return len(commands), sum(each for each in replies if isinstance(each, int))


def leave(wire: Wire, consumer: str, streams: Sequence[str]) -> int:
    """Remove this worker from every stream where nothing is pending for it; returns as `tidy`."""
    listed = wire.exchange(
        [("XPENDING", stream, GROUP, "-", "+", 1, consumer) for stream in streams]
    )
    commands: list[Command] = [
        ("XGROUP", "DELCONSUMER", stream, GROUP, consumer)
        for stream, reply in zip(streams, listed, strict=True)
        if reply == []
    ]
    replies = wire.exchange(commands) if commands else []
    return sum(each for each in replies if isinstance(each, int))


_NOTHING_THERE: Final = frozenset({Trouble.NO_GROUP, Trouble.WRONG_TYPE})
"""A stream without a group, or none at all, has nothing pending; the reader mends it."""


def rows(reply: Reply | RedisFailed) -> list[tuple[bytes, bytes, int, int]]:
    """Read a listing of XPENDING: id, consumer, idle milliseconds, deliveries."""
    found: list[tuple[bytes, bytes, int, int]] = []
    if isinstance(reply, list):
        for row in reply:
            match row:
                case [bytes() as message_id, bytes() as name, int() as idle_ms, int() as count]:
                    found.append((message_id, name, idle_ms, count))
                case _:
                    continue
    return found


def _consumers(reply: Reply | RedisFailed) -> list[tuple[bytes, int, int]]:
    """Read a listing of XINFO CONSUMERS: name, pending messages, idle milliseconds."""
    found: list[tuple[bytes, int, int]] = []
    if isinstance(reply, list):
        for row in reply:
            if isinstance(row, list):
                keys = [each for each in row[::2] if isinstance(each, bytes)]
                facts = dict(zip(keys, row[1::2], strict=True))
                match (facts.get(b"name"), facts.get(b"pending"), facts.get(b"idle")):
                    case (bytes() as name, int() as pending, int() as idle_ms):
                        found.append((name, pending, idle_ms))
                    case _:
                        continue
    return found


def _raise_first(replies: Iterable[Reply | RedisFailed]) -> None:
    for reply in replies:
        if isinstance(reply, RedisFailed) and reply.trouble not in _NOTHING_THERE:
            raise reply


def places(messages: Iterable[Message]) -> list[Place]:
    """Return where messages stand."""
    return [(message.stream, message.id) for message in messages]
