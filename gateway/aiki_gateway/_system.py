"""Handlers about the server: what it knows, who is connected, how it is."""

from __future__ import annotations

from aiki_sdk.protocol import HealthStatus

from ._bodies import Alive, Workers, Workflows
from ._call import Call, Reply, json_reply
from ._metrics import CONTENT_TYPE


async def workflows(call: Call) -> Reply:
    """Return the workflows that the server knows."""
    return json_reply(Workflows(tuple(await call.port.workflows())))


async def workers(call: Call) -> Reply:
    """Return the workers that are connected."""
    return json_reply(Workers(tuple(call.engine.workers(call.namespace))))


async def tree(call: Call) -> Reply:
    """Return the live actor tree."""
    return json_reply(call.engine.tree())


async def health(call: Call) -> Reply:
    """Return how this node is."""
    return json_reply(await call.engine.health())


async def alive(_call: Call) -> Reply:
    """Say that the process answers."""
    return json_reply(Alive("ok"))


async def ready(call: Call) -> Reply:
    """Say whether the engine does its work: 200, or 503 with what is wrong."""
    found = await call.engine.health()
    return json_reply(found, 503 if found.status is HealthStatus.UNAVAILABLE else 200)


async def metrics(call: Call) -> Reply:
    """Return what the server counts."""
    text = call.facts.metrics.text(call.engine.tree())
    return Reply(200, text.encode(), CONTENT_TYPE)


async def openapi(call: Call) -> Reply:
    """Return the OpenAPI document."""
    return Reply(200, call.facts.openapi())
