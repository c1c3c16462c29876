"""A worker with a payload codec: the server and its database see sealed payloads alone."""

from __future__ import annotations

import trio

from aiki_sdk import Client, Run, task, workflow
from tests.session.clusters import cluster


class Reversed:
    """A codec that anybody can break, but not by accident."""

    def encode(self, data: bytes) -> bytes:
        return bytes(byte ^ 0x5A for byte in data)

    def decode(self, data: bytes) -> bytes:
        return bytes(byte ^ 0x5A for byte in data)


@task
async def shout(word: str) -> str:
    return word.upper()


@workflow(name="secret", version="1.0.0")
async def secret(run: Run, word: str) -> str:
    return await shout(word) + await shout("again")


async def test_payloads_are_sealed_on_the_way(autojump_clock: trio.testing.MockClock) -> None:
    codec = Reversed()
    async with cluster() as c:
        await c.start_worker(secret, codec=codec)
        client = Client(c.runtime.port_for("default"), workflows=[secret], codec=codec)
        handle = await client.start(secret, "quetzal")
        assert await handle.result(timeout=5) == "QUETZALAGAIN"
        said = b"".join(frame for up, down in c.net.pairs for frame in (*up.frames, *down.frames))
        assert b"task-succeeded" in said
        assert b"quetzal" not in said.lower()
