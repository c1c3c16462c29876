"""The simulated Redis answers what the product asks as a real one does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from attrs import define, field

from aiki_actors.queue.redis import (
    GROUP,
    Command,
    RedisFailed,
    RedisSettings,
    Reply,
    Wire,
)
from aiki_trio.testing.sim._redis import SimRedis
from aiki_trio.testing.sim._redis_wire import RedisWeather, SimConnector
from tests.servers.redis import Binary, RedisServer, binaries
from tests.sim.redis_world import SETTINGS


def commands(rng: random.Random, ids: dict[str, list[str]]) -> list[Command]:
    """Draw some commands of those that the product sends; `ids` are those given so far."""
    stream = rng.choice(["s1", "s2"])
    consumer = rng.choice(["a", "b"])
    known = ids.setdefault(stream, ["1-0"])
    some = [rng.choice(known) for _ in range(rng.randint(1, 3))]
    one = rng.choice(known)
    who = ("GROUP", GROUP, consumer)
    drawn: list[list[Command]] = [
        [("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")],
        [("XADD", stream, "MAXLEN", "=", rng.choice([3, 50]), "*", "v", "1", "run", "x")],
        [("XADD", stream, "MAXLEN", "=", 50, "*", "v", "1", "run", "y", "at", "0")],
        [("XREADGROUP", *who, "COUNT", rng.randint(1, 3), "STREAMS", "s1", "s2", ">", ">")],
        [("XREADGROUP", *who, "COUNT", 1, "STREAMS", stream, ">")],
        [("MULTI",), ("XACK", stream, GROUP, *some), ("XDEL", stream, *some), ("EXEC",)],
        [("XACK", stream, GROUP, one), ("XDEL", stream, one)],
        [("XDEL", stream, one)],
        [("XRANGE", stream, one, one)],
        [("XPENDING", stream, GROUP)],
        [("XPENDING", stream, GROUP, "-", "+", 100, consumer)],
        [("XPENDING", stream, GROUP, one, one, 1)],
        [("XCLAIM", stream, GROUP, consumer, 0, *some, "JUSTID")],
        [("XAUTOCLAIM", stream, GROUP, consumer, 0, "0-0", "COUNT", rng.randint(1, 3))],
        [("XINFO", "CONSUMERS", stream, GROUP)],
        [("XGROUP", "DELCONSUMER", stream, GROUP, consumer)],
        [("SET", "key", "1", "EX", 60), ("EXISTS", "key"), ("TYPE", stream), ("TYPE", "key")],
        [("PEXPIRE", stream, 60_000), ("PEXPIRE", "none", 60_000)],
        [("PING",), ("EXISTS", "none"), ("TYPE", "none")],
    ]
    return rng.choice(drawn)


@define(eq=False)
class Names:
    """Calls the ids of a server by their order, so that two servers can be compared."""

    known: dict[bytes, str] = field(factory=dict[bytes, str])

    def plain(self, reply: Reply | RedisFailed, command: Command) -> Any:
        """Return a reply without the server's own ids, times and words."""
        if isinstance(reply, RedisFailed):
            return reply.trouble
        name, *rest = command
        if name == "XPENDING" and len(rest) > 2 and isinstance(reply, list):
            return [[self._named(row[0]), row[1], row[3]] for row in reply if isinstance(row, list)]
        if name == "XINFO" and isinstance(reply, list):
            facts = [row[: row.index(b"idle")] for row in reply if isinstance(row, list)]
            return sorted(facts, key=str)
        return self._named(reply)

    def _named(self, reply: Reply) -> Any:
        if isinstance(reply, list):
            return [self._named(each) for each in reply]
        return self.known.get(reply, reply) if isinstance(reply, bytes) else reply


MODERN: Final = [binary for binary in binaries() if binary.version >= (7,)]
"""Before 7.0 XAUTOCLAIM did not say what was deleted."""


@pytest.mark.parametrize("binary", MODERN, ids=lambda binary: binary.name)
@pytest.mark.parametrize("seed", range(2))
def test_it_answers_as_a_real_redis_does(seed: int, binary: Binary, tmp_path: Path) -> None:
    with RedisServer(tmp_path, binary) as server:
        # By the machine's clock: two entries of one millisecond would have one name.
        trio.run(compare, seed, server.url)


async def compare(seed: int, url: str) -> None:
    """Send both the same, and compare what they say."""
    rng = random.Random(seed)
    real = Wire(RedisSettings(url))
    simulated = SimConnector(SimRedis(rng), RedisWeather(), rng).wire(SETTINGS)
    names = {real: Names(), simulated: Names()}
    order: dict[str, list[str]] = {}
    at: dict[Wire, dict[str, str]] = {real: {}, simulated: {}}
    for step in range(400):
        drawn = commands(rng, order)
        said: dict[Wire, list[Any]] = {}
        for wire in (real, simulated):
            sent: list[Command] = [
                tuple(at[wire].get(str(word), word) for word in command) for command in drawn
            ]
            replies = wire.exchange(sent)
            for command, reply in zip(drawn, replies, strict=True):
                if command[0] == "XADD" and isinstance(reply, bytes):
                    name = f"7-{step}"
                    names[wire].known[reply] = name
                    at[wire][name] = reply.decode()
                    if wire is simulated:
                        order[str(command[1])].append(name)
            said[wire] = [
                names[wire].plain(reply, command)
                for command, reply in zip(drawn, replies, strict=True)
            ]
        assert said[real] == said[simulated], f"step {step}: {drawn}"
        await trio.sleep(0.002)
    real.close()
