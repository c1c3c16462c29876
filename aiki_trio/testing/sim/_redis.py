"""A simulated Redis: as much of it as carries ready runs, in one object and in virtual time.

It answers the commands that `aiki_actors.queue.redis` sends as a Redis 7 does; a test runs the same
commands on a real one. Unlike a real one it can be told to misbehave: an entry can stay unseen for
a while, come in another order, come twice, or be gone although it was acknowledged; all that was
written since some moment can be gone too, as after a failover to a replica that was behind.

Invariant: an answer depends on the commands, the virtual time and `rng`, on nothing else.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

import trio
from attrs import define, field

from aiki_actors.queue.redis import Command, RedisFailed, Reply, Trouble

from ._redis_streams import FIRST, EntryId, Group, Pending, Stream, entry_of, text_of

SCAN_FACTOR: Final = 10
"""XAUTOCLAIM looks at so many times more pending entries than it is to return."""

EPOCH_MS: Final = 1_767_225_600_000
"""What the clock of Redis shows when a simulation begins: 2026."""


@define(eq=False)
class Manners:
    """How the simulated Redis treats what it is given; by default as a real one does.

    Attributes:
        dropped: the chance of an entry to be gone as soon as its id was given.
        doubled: the chance of an entry to be there twice.
        delayed_s: the longest time that an entry is given to nobody.
        shuffled: whether fresh entries are given in any order.
        replicated: the chance of a write to reach the replica, with all writes before it.

    """

    dropped: float = 0.0
    doubled: float = 0.0
    delayed_s: float = 0.0
    shuffled: bool = False
    replicated: float = 0.1


@define(eq=False)
class SimRedis:
    """The server.

    Attributes:
        rng: decides what misbehaves.
        manners: how.
        refuses: why every write is refused; None: none is.
        on_added: told of each run that a message is added for.
        life: rises whenever all connections are cut.
        changed: set, and made anew, whenever somebody may find something.

    """

    rng: random.Random
    manners: Manners = field(factory=Manners)
    refuses: Trouble | None = None
    on_added: Callable[[str], None] = field(default=lambda _run_id: None)
    life: int = field(default=1, init=False)
    changed: trio.Event = field(factory=trio.Event, init=False)
    _streams: dict[str, Stream] = field(factory=lambda: dict[str, Stream](), init=False)
    _texts: dict[str, float] = field(factory=lambda: dict[str, float](), init=False)
    _replica: tuple[dict[str, Stream], dict[str, float]] = field(
        factory=lambda: (dict[str, Stream](), dict[str, float]()), init=False
    )

    # -- what happens to it ----------------------------------------------------------------------

    def cut(self) -> None:
        """Cut every connection."""
        self.life += 1
        self._wake()

    def forget(self) -> None:
        """Lose everything: a restart without persistence, or somebody's FLUSHALL."""
        self._streams, self._texts = {}, {}
        self.cut()

    def fail_over(self) -> None:
        """Lose what the replica had not heard of; it takes the place of its master."""
        self._streams, self._texts = self._replica
        self._replicate()
        self.cut()

    def _replicate(self) -> None:
        self._replica = copy.deepcopy((self._streams, self._texts))

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def length(self, stream: str) -> int:
        """Return how many entries a stream has."""
        return len(self._streams[stream].entries) if stream in self._streams else 0

    def pending(self, stream: str) -> int:
        """Return how many entries of a stream were delivered and are not acknowledged."""
        groups = self._streams[stream].groups.values() if stream in self._streams else ()
        return sum(len(group.pending) for group in groups)

    def next_seen_s(self) -> float:
        """Return when the next hidden entry comes into view, by the virtual clock."""
        now_s = trio.current_time()
        times = (at for stream in self._streams.values() for at in stream.hidden_s.values())
        return min((at for at in times if at > now_s), default=inf)

    # -- commands --------------------------------------------------------------------------------

    def execute(self, command: Command) -> Reply | RedisFailed:
        """Carry one command out; an error that Redis gives is a value, as on a wire."""
        name, *words = (word.decode() if isinstance(word, bytes) else str(word) for word in command)
        subject = f"{name} {words[0]}" if name in {"XGROUP", "XINFO"} else name
        if self.refuses is not None and subject in _WRITES:
            return _failed(self.refuses, f"{self.refuses.value} command not allowed")
        self._expire()
        reply = _COMMANDS[subject](self, words)
        if subject in _WRITES and self.rng.random() < self.manners.replicated:
            self._replicate()
        return reply

    def _expire(self) -> None:
        now_s = trio.current_time()
        for key in [key for key, stream in self._streams.items() if stream.until_s <= now_s]:
            del self._streams[key]

    def expire(self, words: list[str]) -> Reply:
        """PEXPIRE key milliseconds; of a stream."""
        stream = self._streams.get(words[0])
        if stream is None:
            return 0
        stream.until_s = trio.current_time() + float(words[1]) / 1000
        return 1

    def ping(self, _words: list[str]) -> Reply:
        """Answer."""
        return b"PONG"

    def set_text(self, words: list[str]) -> Reply:
        """SET key value EX seconds."""
        key, _value, _ex, seconds = words
        self._texts[key] = trio.current_time() + float(seconds)
        return b"OK"

    def exists(self, words: list[str]) -> Reply:
        """EXISTS key; streams are not asked for."""
        return int(self._texts.get(words[0], -inf) > trio.current_time())

    def type_of(self, words: list[str]) -> Reply:
        """TYPE key."""
        if words[0] in self._streams:
            return b"stream"
        return b"string" if self.exists(words) else b"none"

    def xadd(self, words: list[str]) -> Reply:
        """XADD key MAXLEN = most * field value, and so on."""
        key, _maxlen, _exactly, most, _any_id, *pairs = words
        stream = self._streams.setdefault(key, Stream())
        manners, rng = self.manners, self.rng
        self.on_added(dict(zip(pairs[::2], pairs[1::2], strict=True)).get("run", ""))
        entry = self._append(stream, pairs)
        if rng.random() < manners.doubled:
            self._append(stream, pairs)
        if rng.random() < manners.dropped:
            stream.remove(entry)
        for oldest in sorted(stream.entries)[: -int(most)]:
            stream.remove(oldest)
        self._wake()
        return text_of(entry)

    def _append(self, stream: Stream, pairs: Sequence[str]) -> EntryId:
        ms, number = stream.last
        now_ms = self._now_ms()
        entry = stream.last = (now_ms, 0) if now_ms > ms else (ms, number + 1)
        stream.entries[entry] = [word.encode() for word in pairs]
        for group in stream.groups.values():
            group.fresh[entry] = None
        if self.manners.delayed_s:
            hidden_s = self.manners.delayed_s * self.rng.random() ** 3
            stream.hidden_s[entry] = trio.current_time() + hidden_s
        return entry

    def xdel(self, words: list[str]) -> Reply:
        """XDEL key id, and more ids."""
        stream = self._streams.get(words[0], Stream())
        return sum(stream.remove(entry_of(word)) for word in words[1:])

    def xack(self, words: list[str]) -> Reply:
        """XACK key group id, and more ids."""
        group = self._streams.get(words[0], Stream()).groups.get(words[1], Group())
        return sum(group.pending.pop(entry_of(word), None) is not None for word in words[2:])

    def xrange(self, words: list[str]) -> Reply:
        """XRANGE key id id: one entry."""
        stream = self._streams.get(words[0], Stream())
        entry = entry_of(words[1])
        return [self._shown(stream, entry)] if entry in stream.entries else []

    def _shown(self, stream: Stream, entry: EntryId) -> Reply:
        return [text_of(entry), list(stream.entries[entry])]

    def create_group(self, words: list[str]) -> Reply | RedisFailed:
        """XGROUP CREATE key group 0 MKSTREAM."""
        _create, key, name, *_rest = words
        stream = self._streams.setdefault(key, Stream())
        if name in stream.groups:
            return _failed(Trouble.REFUSED, "BUSYGROUP Consumer Group name already exists")
        stream.groups[name] = Group(dict.fromkeys(sorted(stream.entries)))
        return b"OK"

    def delete_consumer(self, words: list[str]) -> Reply | RedisFailed:
        """XGROUP DELCONSUMER key group consumer."""
        _delconsumer, key, name, consumer = words
        if key not in self._streams:
            return _failed(Trouble.REFUSED, "the XGROUP subcommand requires the key to exist")
        group = self._group(key, name)
        if isinstance(group, RedisFailed):
            return group
        group.seen_ms.pop(consumer, None)
        theirs = [entry for entry, one in group.pending.items() if one.consumer == consumer]
        for entry in theirs:
            del group.pending[entry]
        return len(theirs)

    def list_consumers(self, words: list[str]) -> Reply | RedisFailed:
        """XINFO CONSUMERS key group."""
        if words[1] not in self._streams:
            return _failed(Trouble.REFUSED, "no such key")
        group = self._group(words[1], words[2])
        if isinstance(group, RedisFailed):
            return group
        now_ms = self._now_ms()
        listed: list[Reply] = []
        for name, seen_ms in sorted(group.seen_ms.items()):
            number = sum(one.consumer == name for one in group.pending.values())
            facts: list[Reply] = [b"name", name.encode(), b"pending", number]
            listed.append([*facts, b"idle", now_ms - seen_ms])
        return listed

    def _group(self, key: str, name: str) -> Group | RedisFailed:
        if key not in self._streams:
            return _failed(Trouble.NO_GROUP, f"NOGROUP No such key '{key}'")
        group = self._streams[key].groups.get(name)
        if group is None:
            return _failed(Trouble.NO_GROUP, f"NOGROUP No such consumer group '{name}'")
        return group

    def xreadgroup(self, words: list[str]) -> Reply | RedisFailed:
        """XREADGROUP GROUP group consumer COUNT most STREAMS keys, and a > for each."""
        _group, name, consumer, _count, most, *rest = words
        keys = rest[rest.index("STREAMS") + 1 :]
        keys = keys[: len(keys) // 2]
        groups = [self._group(key, name) for key in keys]
        found: list[Reply] = []
        for group in groups:
            if isinstance(group, RedisFailed):
                return group
        for key, group in zip(keys, groups, strict=True):
            assert isinstance(group, Group), "asked just above"
            group.seen_ms[consumer] = self._now_ms()
            stream = self._streams[key]
            given = self._fresh(stream, group)[: int(most)]
            for entry in given:
                del group.fresh[entry]
                group.pending[entry] = Pending(consumer, self._now_ms())
            if given:
                found.append([key.encode(), [self._shown(stream, entry) for entry in given]])
        return found or None

    def _fresh(self, stream: Stream, group: Group) -> list[EntryId]:
        now_s = trio.current_time()
        entries = [entry for entry in group.fresh if stream.hidden_s.get(entry, 0.0) <= now_s]
        if self.manners.shuffled:
            self.rng.shuffle(entries)
        return entries

    def xpending(self, words: list[str]) -> Reply | RedisFailed:
        """XPENDING key group [first last most [consumer]]."""
        key, name, *rest = words
        group = self._group(key, name)
        if isinstance(group, RedisFailed):
            return group
        if not rest:
            return self._summary(group)
        first, last, most, *consumer = rest
        rows: list[Reply] = []
        now_ms = self._now_ms()
        for entry, one in sorted(group.pending.items(), key=lambda item: item[0]):
            inside = first == "-" or entry_of(first) <= entry <= entry_of(last)
            if inside and (not consumer or one.consumer == consumer[0]):
                who = one.consumer.encode()
                rows.append([text_of(entry), who, now_ms - one.since_ms, one.deliveries])
        return rows[: int(most)]

    def _summary(self, group: Group) -> Reply:
        if not group.pending:
            return [0, None, None, None]
        numbers: dict[str, int] = {}
        for one in group.pending.values():
            numbers[one.consumer] = numbers.get(one.consumer, 0) + 1
        listed: list[Reply] = [
            [name.encode(), str(number).encode()] for name, number in sorted(numbers.items())
        ]
        first, last = min(group.pending), max(group.pending)
        return [len(group.pending), text_of(first), text_of(last), listed]

    def xclaim(self, words: list[str]) -> Reply | RedisFailed:
        """XCLAIM key group consumer 0 id… JUSTID."""
        key, name, consumer, _idle, *ids, _justid = words
        group = self._group(key, name)
        if isinstance(group, RedisFailed):
            return group
        group.seen_ms[consumer] = self._now_ms()
        claimed: list[Reply] = []
        for entry in map(entry_of, ids):
            one = group.pending.get(entry)
            if one is None:
                continue
            if entry not in self._streams[key].entries:
                del group.pending[entry]
                continue
            one.consumer, one.since_ms = consumer, self._now_ms()
            claimed.append(text_of(entry))
        return claimed

    def xautoclaim(self, words: list[str]) -> Reply | RedisFailed:
        """XAUTOCLAIM key group consumer idle cursor COUNT most."""
        key, name, consumer, idle_ms, cursor, _count, most = words
        group = self._group(key, name)
        if isinstance(group, RedisFailed):
            return group
        now_ms, stream, left = self._now_ms(), self._streams[key], int(most)
        group.seen_ms[consumer] = now_ms
        claimed: list[Reply] = []
        deleted: list[Reply] = []
        attempts, on = left * SCAN_FACTOR, FIRST
        for entry in sorted(each for each in group.pending if each >= entry_of(cursor)):
            if not attempts or not left:
                on = entry
                break
            attempts -= 1
            if entry not in stream.entries:
                del group.pending[entry]
                deleted.append(text_of(entry))
                left -= 1
            elif now_ms - group.pending[entry].since_ms >= int(idle_ms):
                deliveries = group.pending[entry].deliveries + 1
                group.pending[entry] = Pending(consumer, now_ms, deliveries)
                claimed.append(self._shown(stream, entry))
                left -= 1
        return [text_of(on), claimed, deleted]

    def _now_ms(self) -> int:
        return EPOCH_MS + round(trio.current_time() * 1000)


def _failed(trouble: Trouble, message: str) -> RedisFailed:
    return RedisFailed(trouble, f"the simulated Redis: {message}")


_COMMANDS: Final[Mapping[str, Callable[[SimRedis, list[str]], Reply | RedisFailed]]] = {
    "PING": SimRedis.ping,
    "SET": SimRedis.set_text,
    "EXISTS": SimRedis.exists,
    "PEXPIRE": SimRedis.expire,
    "TYPE": SimRedis.type_of,
    "XADD": SimRedis.xadd,
    "XDEL": SimRedis.xdel,
    "XACK": SimRedis.xack,
    "XRANGE": SimRedis.xrange,
    "XGROUP CREATE": SimRedis.create_group,
    "XGROUP DELCONSUMER": SimRedis.delete_consumer,
    "XINFO CONSUMERS": SimRedis.list_consumers,
    "XREADGROUP": SimRedis.xreadgroup,
    "XPENDING": SimRedis.xpending,
    "XCLAIM": SimRedis.xclaim,
    "XAUTOCLAIM": SimRedis.xautoclaim,
}
_READS: Final = frozenset({"PING", "EXISTS", "TYPE", "XRANGE", "XINFO CONSUMERS", "XPENDING"})
_WRITES: Final = frozenset(_COMMANDS) - _READS
