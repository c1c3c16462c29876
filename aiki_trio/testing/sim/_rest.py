"""What a server holds when all is at rest, and what a client of another namespace gets to see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Final

from aiki_sdk import NotFound
from aiki_sdk.protocol import (
    ClientPort,
    ControlCommand,
    ControlRequest,
    RunQuery,
    SendRequest,
)
from aiki_trio._runtime import Runtime

STRANGERS: Final = "strangers"
"""A namespace in which nothing is ever started."""


def leftovers(runtime: Runtime, slots: int, published: int) -> Iterator[tuple[str, str]]:
    """P9: memory is bounded, for nothing is kept of runs that have ended."""
    matcher = runtime.dispatcher.matcher
    held = {
        "run actors": runtime.runs.active,
        "timers": len(runtime.timers),
        "queued runs": len(matcher.queue),
        "published runs": published,
        "broken claims": len(runtime.dispatcher.broken),
    }
    for what, number in held.items():
        if number:
            yield "P9", f"the server has {number} {what}, and every run has ended"
    for worker_id in matcher.slots.workers():
        free = matcher.slots.free(worker_id)
        if free != slots:
            yield "P9", f"worker {worker_id} has {free} of {slots} slots free, and nothing to do"


async def seen_by_a_stranger(port: ClientPort, run_ids: Sequence[str]) -> list[str]:
    """P11: ask for everything that there is, from another namespace; return what was answered."""
    seen: list[str] = []
    listed = await port.list(RunQuery())
    if listed.runs:
        seen.append(f"{len(listed.runs)} runs of another namespace are listed")
    sent = SendRequest(event="go", data=1, reference_id="stranger")
    cancelled = ControlRequest(command=ControlCommand.CANCEL)
    for run_id in run_ids:
        asked: dict[str, Callable[[], Awaitable[object]]] = {
            "read": partial(port.get, run_id),
            "sent to": partial(port.send, run_id, sent),
            "cancelled": partial(port.control, run_id, cancelled),
        }
        for what, ask in asked.items():
            try:
                await ask()
            except NotFound:
                continue
            seen.append(f"run {run_id} was {what} from another namespace")
    return seen
