"""What the gateway counts, and the text form in which Prometheus reads it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from attrs import define, field

from aiki_sdk.protocol import TreeNode

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


@define(eq=False)
class Metrics:
    """Counters and gauges of one gateway; every operation is a name of the route table."""

    requests: dict[tuple[str, int], int] = field(factory=lambda: dict[tuple[str, int], int]())
    seconds: dict[str, float] = field(factory=lambda: dict[str, float]())
    in_flight: int = 0
    connections: int = 0
    connections_total: int = 0
    streams: int = 0
    namespace_streams: int = 0
    streams_cut_off: int = 0
    updates_sent: int = 0
    rate_limited: int = 0

    def answered(self, operation: str, status: int, seconds: float) -> None:
        """Count an answer and the time that it took."""
        key = (operation, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.seconds[operation] = self.seconds.get(operation, 0.0) + seconds

    @contextmanager
    def namespace_stream(self) -> Generator[None]:
        """Count a stream of a namespace, or a websocket's subscription, as long as it is told."""
        self.namespace_streams += 1
        try:
            yield
        finally:
            self.namespace_streams -= 1

    def text(self, tree: TreeNode) -> str:
        """Return everything in Prometheus' text format."""
        return "".join(f"{line}\n" for line in self._lines(tree))

    def _lines(self, tree: TreeNode) -> Iterator[str]:
        yield from _family(
            "aiki_http_requests_total",
            "counter",
            "Requests answered.",
            (
                ((("operation", operation), ("status", str(status))), count)
                for (operation, status), count in sorted(self.requests.items())
            ),
        )
        yield from _family(
            "aiki_http_request_seconds_total",
            "counter",
            "Seconds spent on answering.",
            (
                ((("operation", operation),), seconds)
                for operation, seconds in sorted(self.seconds.items())
            ),
        )
        plain = (
            ("aiki_http_requests_in_flight", "gauge", "Requests in work.", self.in_flight),
            ("aiki_connections", "gauge", "Open connections.", self.connections),
            ("aiki_connections_total", "counter", "Connections.", self.connections_total),
            ("aiki_streams", "gauge", "Live streams and websockets.", self.streams),
            ("aiki_namespace_streams", "gauge", "Subscriptions of many.", self.namespace_streams),
            ("aiki_streams_cut_off_total", "counter", "Too slow readers.", self.streams_cut_off),
            ("aiki_stream_updates_total", "counter", "Updates streamed.", self.updates_sent),
            ("aiki_rate_limited_total", "counter", "Requests refused: 429.", self.rate_limited),
        )
        for name, kind, about, value in plain:
            yield from _family(name, kind, about, [((), value)])
        yield from _actors(tree)


def _actors(tree: TreeNode) -> Iterator[str]:
    nodes = [tree, *tree.children]
    labelled: list[tuple[Labels, TreeNode]] = [((("actor", node.path),), node) for node in nodes]
    yield from _family(
        "aiki_actor_mailbox_depth",
        "gauge",
        "Messages that wait for an actor.",
        ((labels, node.mailbox_depth) for labels, node in labelled),
    )
    yield from _family(
        "aiki_actor_restarts_total",
        "counter",
        "Restarts of an actor.",
        ((labels, node.restarts) for labels, node in labelled),
    )
    yield from _family(
        "aiki_actor_children",
        "gauge",
        "Actors under a supervisor.",
        ((labels, len(node.children)) for labels, node in labelled if node.children),
    )


def _family(
    name: str, kind: str, about: str, samples: Iterable[tuple[Labels, float]]
) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
        yield f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
