"""Whichever of Trio and asyncio runs: what they do differently, made the same.

asyncio's cancellation strikes wherever a task waits, also inside a clean-up that anyio shields from
it; httpx would lose connections that way. A child task is cancelled by its scope, as under Trio.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from sniffio import current_async_library

T = TypeVar("T")


async def in_scope(
    act: Callable[[], Awaitable[T]], drop: Callable[[T], Awaitable[None]] | None = None
) -> T:
    """Do something such that being cancelled lets it clean up in peace.

    Args:
        act: what to do.
        drop: undoes it, for a cancellation that comes when it is done and before this returns.
    """
    if current_async_library() == "trio":
        return await act()
    results: list[T] = []
    errors: list[Exception] = []

    async def child() -> None:
        try:
            results.append(await act())
        except Exception as error:  # noqa: BLE001  # handed on below, outside of a group
            errors.append(error)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
    except BaseException:
        if results and drop is not None:
            with anyio.CancelScope(shield=True):
                await drop(results[0])
        raise
    if errors:
        raise errors[0]
    return results[0]
