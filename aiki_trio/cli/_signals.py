"""When a command that serves is to stop: at a signal, or when its parent process is gone."""

from __future__ import annotations

import signal
import sys

import trio


async def stop_on_signal(
    stop: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop.set()


async def stop_with_parent(stop: trio.Event) -> None:
    async with trio.lowlevel.FdStream(sys.stdin.fileno()) as stream:
        while await stream.receive_some():
            continue
    stop.set()
