"""What a simulated Redis keeps: streams, their groups, and who was given which entry."""

from __future__ import annotations

from math import inf
from typing import Final

from attrs import define, field

from aiki_actors.queue.redis import Reply

EntryId = tuple[int, int]
FIRST: Final[EntryId] = (0, 0)


def text_of(entry: EntryId) -> bytes:
    """Write the id of an entry."""
    return f"{entry[0]}-{entry[1]}".encode()


def entry_of(text: str) -> EntryId:
    """Read the id of an entry."""
    ms, _, number = text.partition("-")
    return int(ms), int(number or 0)


@define
class Pending:
    """An entry that was delivered and is not acknowledged."""

    consumer: str
    since_ms: int
    deliveries: int = 1


@define
class Group:
    """A consumer group.

    Attributes:
        fresh: entries that were delivered to nobody yet, in order.
        pending: entries that were delivered.
        seen_ms: per consumer when it last asked for something.

    """

    fresh: dict[EntryId, None] = field(factory=lambda: dict[EntryId, None]())
    pending: dict[EntryId, Pending] = field(factory=lambda: dict[EntryId, Pending]())
    seen_ms: dict[str, int] = field(factory=lambda: dict[str, int]())


@define
class Stream:
    """A stream.

    Attributes:
        hidden_s: per entry until when nobody is given it, by the virtual clock.
        until_s: when it is gone, by the virtual clock.

    """

    entries: dict[EntryId, list[Reply]] = field(factory=lambda: dict[EntryId, list[Reply]]())
    last: EntryId = FIRST
    groups: dict[str, Group] = field(factory=lambda: dict[str, Group]())
    hidden_s: dict[EntryId, float] = field(factory=lambda: dict[EntryId, float]())
    until_s: float = inf

    def remove(self, entry: EntryId) -> bool:
        """Take an entry out; it stays pending for whoever has it."""
        self.hidden_s.pop(entry, None)
        for group in self.groups.values():
            group.fresh.pop(entry, None)
        return self.entries.pop(entry, None) is not None
