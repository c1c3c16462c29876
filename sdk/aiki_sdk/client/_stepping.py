"""Coroutines without a loop: those that wait for nothing but sockets run in a plain call.

Over `SyncExchange` no coroutine of the client ever suspends, so that one step takes it to its end.
That is all there is between `Client` and `SyncClient`: no thread, no loop, nothing to be stopped.
"""

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


def run_plain(awaitable: Awaitable[T]) -> T:
    """Run a coroutine to its end in this thread.

    Raises:
        RuntimeError: it suspended: what it was given to speak to needs Trio or asyncio.
    """
    coroutine = cast("Coroutine[Any, Any, T]", awaitable)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    coroutine.close()
    message = "a SyncClient was given a port that needs Trio or asyncio; give it a URL"
    raise RuntimeError(message)
