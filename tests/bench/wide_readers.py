"""Many readers of everything that happens, in a process of their own and cheap: they bound nothing.

`python -m tests.bench.wide_readers URL READERS RUNS STEPS` prints `ready` when all are connected,
and one JSON object when each has seen so many runs of the workload end. Each reads a raw stream of
server-sent events, by HTTP/1.0, whose answers come without chunks; what it is told is counted and
summed up, and only the delay of some is computed. All are told the same, so their sums agree.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import trio
from attrs import define, field

from tests.bench._measuring import WrongResult, check, percentile
from tests.bench._workflows import chain

RECEIVE_BYTES: Final = 256 * 1024
LINE_END: Final = b"\r\n"
UPDATE: Final = b"\nevent: update\n"
ENDED: Final = b'"kind":"run-completed"'
DURABLE: Final = b'"live":false'
AT: Final = b'"at":"'
AROUND_RUN: Final = 3
"""Entries of a run beside those of its tasks: created, claimed, completed."""


@define(eq=False)
class Reader:
    """One subscriber."""

    stream: trio.SocketStream
    updates: int = 0
    durable: int = 0
    ended: int = 0
    delays_ms: list[float] = field(factory=lambda: list[float]())
    checksum: int = 0
    """Of all updates, in order, with their ids."""
    _rest: bytes = b""

    async def connect(self, host: str) -> None:
        """Ask for everything from now on, and wait until the server gives it."""
        asked = (
            f"GET /v1/stream?from=latest&workflow={chain.name} HTTP/1.0",
            f"Host: {host}",
            "Accept: text/event-stream",
        )
        await self.stream.send_all("\r\n".join([*asked, "", ""]).encode())
        head = b""
        while LINE_END * 2 not in head:
            head += await self._receive()
        if not head.startswith(b"HTTP/1.1 200"):
            message = f"a reader was refused: {head[:300]!r}"
            raise WrongResult(message)
        self._rest = head.partition(LINE_END * 2)[2]

    async def read(self, runs: int) -> None:
        """Read until so many runs have ended."""
        while self.ended < runs:
            text = self._rest + await self._receive()
            whole, found, self._rest = text.rpartition(b"\n\n")
            if not found:
                continue
            # What else comes are comments, and ids that only move the place on.
            updates = [one.lstrip(b":\n") for one in whole.split(b"\n\n") if UPDATE in one]
            if updates:
                self._take(updates)

    def _take(self, updates: Sequence[bytes]) -> None:
        joined = b"".join(updates)
        self.checksum = zlib.crc32(joined, self.checksum)
        self.updates += len(updates)
        self.durable += joined.count(DURABLE)
        self.ended += joined.count(ENDED)
        # The first one has waited longest for the others of its batch.
        at = datetime.fromisoformat(updates[0].partition(AT)[2].partition(b'"')[0].decode())
        self.delays_ms.append((time.time() - at.timestamp()) * 1e3)

    async def _receive(self) -> bytes:
        data = await self.stream.receive_some(RECEIVE_BYTES)
        if not data:
            message = f"a reader was cut off after {self.updates} updates"
            raise WrongResult(message)
        return bytes(data)


async def _main(url: str, count: int, runs: int, steps: int) -> None:
    place = urlsplit(url)
    assert place.hostname is not None, "a server's URL names its host"
    assert place.port is not None, "a server's URL names its port"
    readers: list[Reader] = []
    for _ in range(count):
        readers.append(Reader(await trio.open_tcp_stream(place.hostname, place.port)))
        await readers[-1].connect(place.hostname)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(reader.read, runs)
    told = {(reader.checksum, reader.updates, reader.durable) for reader in readers}
    check(actual=len(told), expected=1, what="number of different things that readers were told")
    check(
        actual=readers[0].durable,
        expected=runs * (steps + AROUND_RUN),
        what="number of durable updates that each reader was told",
    )
    delays_ms = [delay for reader in readers for delay in reader.delays_ms]
    figures = {
        "updates": sum(reader.updates for reader in readers),
        "p50_delay_ms": percentile(delays_ms, 50),
        "p99_delay_ms": percentile(delays_ms, 99),
        "reads": len(delays_ms),
        "cpu_s": time.process_time(),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    trio.run(partial(_main, sys.argv[1], *map(int, sys.argv[2:5])))
