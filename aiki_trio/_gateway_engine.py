"""The runtime as the gateway's engine: `Engine` carried out by the parts of one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import trio
from attrs import define, field

from aiki_actors.kernel import TreeNode as LiveNode
from aiki_actors.server import Feed, NamespaceUpdates, ServerClientPort, SnapshotOf
from aiki_actors.session import Connection
from aiki_gateway import (
    LiveStream,
    Positioned,
    RunUpdates,
    Snapshot,
    StreamFilter,
    StreamStart,
    WorkerInfo,
)
from aiki_sdk._names import check_name
from aiki_sdk.protocol import Health, HealthStatus, TreeNode

if TYPE_CHECKING:
    from aiki_trio._runtime import Runtime

PORTS_MAX: Final = 1_000
"""Ports kept for namespaces; whoever names many makes no more than this."""

HEALTH_TIMEOUT_S: Final = 1.0


@define(eq=False)
class RuntimeEngine:
    """What the gateway asks of a runtime."""

    _runtime: Runtime
    feed: Feed = field(init=False)
    _ports: dict[str, ServerClientPort] = field(
        factory=lambda: dict[str, ServerClientPort](), init=False
    )

    def __attrs_post_init__(self) -> None:
        """Make the feed, which costs nothing until somebody reads it."""
        # A claim id is random: no other process of this server has had the same.
        self.feed = Feed(self._runtime.hub, self._runtime.ids.claim_id())

    def client_port(self, namespace: str) -> ServerClientPort:
        """Return the port of one namespace's clients."""
        port = self._ports.get(namespace)
        if port is None:
            check_name("namespace", namespace)
            if len(self._ports) >= PORTS_MAX:
                self._ports.clear()
            port = self._ports[namespace] = self._runtime.port_for(namespace)
        return port

    def run_updates(
        self, namespace: str, run_id: str, *, after: int
    ) -> AbstractAsyncContextManager[RunUpdates]:
        """Open a run's updates."""
        return self.client_port(namespace).updates(run_id, after=after)

    def subscribe(
        self, namespace: str, where: StreamFilter, start: StreamStart, *, buffer: int
    ) -> AbstractAsyncContextManager[LiveStream]:
        """Open a stream of a namespace's updates."""
        return _Live(
            NamespaceUpdates(
                self._runtime.storage,
                self.feed,
                namespace,
                where.runs,
                where.workflows,
                where.statuses,
                start.after,
                start.position,
                start.latest,
                buffer,
            )
        )

    def workers(self, namespace: str) -> Sequence[WorkerInfo]:
        """Return the workers of a namespace that are connected now, by id."""
        slots = self._runtime.dispatcher.matcher.slots
        found: list[WorkerInfo] = []
        for worker_id in sorted(slots.workers()):
            served = slots.served_by(worker_id)
            if served is not None and served.namespace == namespace:
                found.append(
                    WorkerInfo(
                        id=worker_id,
                        namespace=namespace,
                        workflows=tuple(f"{name}@{ver}" for name, ver in sorted(served.workflows)),
                        pools=tuple(sorted(served.pools)),
                        free=slots.free(worker_id),
                    )
                )
        return found

    def accept_worker(self, frame: bytes) -> Connection:
        """Take a worker's first word; see `Sessions.accept`."""
        return self._runtime.sessions.accept(frame)

    def tree(self) -> TreeNode:
        """Return a picture of the live actor tree."""
        return wire_node(self._runtime.tree())

    async def health(self) -> Health:
        """Return how this node is."""
        port = self.client_port(self._runtime.namespace)
        with trio.move_on_after(HEALTH_TIMEOUT_S):
            return await port.health()
        problem = f"no answer within {HEALTH_TIMEOUT_S:g} s"
        return Health(HealthStatus.UNAVAILABLE, {"storage": problem})


@define(eq=False)
class _Live:
    """A namespace's updates, in the gateway's words."""

    _updates: NamespaceUpdates

    async def __aenter__(self) -> Self:
        await self._updates.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._updates.__aexit__(kind, error, traceback)

    async def next_batch(self, gather_s: float = 0.0) -> Sequence[Snapshot | Positioned]:
        """Wait for what comes next."""
        batch = await self._updates.next_batch(gather_s)
        return [
            Snapshot(one.runs, one.more) if isinstance(one, SnapshotOf) else one for one in batch
        ]

    def position(self) -> str | None:
        """Return the position behind all that was read; None if more is waiting."""
        return self._updates.position()

    def cursors(self) -> Mapping[str, int]:
        """Return, for the runs read last, the seq of the last update read."""
        return self._updates.cursors()


def wire_node(node: LiveNode) -> TreeNode:
    """Return a picture of the tree as it travels."""
    return TreeNode(
        name=node.name,
        kind=node.kind,
        path=node.path,
        state=node.state,
        mailbox_depth=node.mailbox_depth,
        restarts=node.restarts,
        describe=node.describe,
        children=tuple(wire_node(child) for child in node.children),
    )
