"""The `Engine` protocol can be met by a few lines, and says nothing that cannot be sent."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from aiki_actors.session import Connection
from aiki_gateway import Engine, LiveStream, RunUpdates, StreamFilter, StreamStart, WorkerInfo
from aiki_sdk import Client, Unavailable
from aiki_sdk.protocol import ClientPort, Health, HealthStatus, TreeNode
from tests.unit.sdk.fake_port import FakePort


class FakeEngine:
    """An engine with one namespace after another, each in memory."""

    def __init__(self) -> None:
        self._ports: dict[str, FakePort] = {}

    def client_port(self, namespace: str) -> ClientPort:
        return self._ports.setdefault(namespace, FakePort(namespace=namespace))

    def run_updates(
        self, namespace: str, run_id: str, *, after: int
    ) -> AbstractAsyncContextManager[RunUpdates]:
        raise Unavailable("there is nothing to watch")

    def subscribe(
        self, namespace: str, where: StreamFilter, start: StreamStart, *, buffer: int
    ) -> AbstractAsyncContextManager[LiveStream]:
        raise Unavailable("there is nothing to watch")

    def workers(self, namespace: str) -> Sequence[WorkerInfo]:
        return [WorkerInfo(id="wrk_1", namespace=namespace)]

    def accept_worker(self, frame: bytes) -> Connection:
        raise Unavailable("no workers are taken")

    def tree(self) -> TreeNode:
        hub = TreeNode(name="hub", kind="actor", path="/runtime/hub", state="running")
        return TreeNode(
            name="runtime", kind="supervisor", path="/runtime", state="running", children=(hub,)
        )

    async def health(self) -> Health:
        return Health(HealthStatus.DEGRADED, {"redis": "connection refused"}, "0.1.0")


async def test_an_engine_offers_a_port_per_namespace_that_a_client_works_on() -> None:
    engine: Engine = FakeEngine()
    client = Client(engine.client_port("orders"))
    handle = await client.start("greet", name="Ada")

    assert client.namespace == "orders"
    assert (await handle.info()).namespace == "orders"
    assert await Client(engine.client_port("other")).count() == 0


async def test_a_degraded_engine_says_which_component_is_in_trouble() -> None:
    engine: Engine = FakeEngine()

    health = await engine.health()

    assert not health.ok
    assert health.problems == {"redis": "connection refused"}


def test_the_engine_speaks_wire_values_only() -> None:
    """Of what the engine answers, all is a wire value, but for streams and sessions."""
    methods = {
        name: member
        for name, member in inspect.getmembers(Engine, inspect.isfunction)
        if not name.startswith("_")
    }
    streams = {"accept_worker", "run_updates", "subscribe"}

    assert sorted(methods) == sorted({*streams, "client_port", "health", "tree", "workers"})
    for name in methods.keys() - streams:
        answer = typing.get_type_hints(methods[name])["return"]
        (inner,) = typing.get_args(answer) or (answer,)
        assert inner is WorkerInfo or inner.__module__.startswith("aiki_sdk.protocol")
