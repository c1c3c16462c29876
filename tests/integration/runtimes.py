"""A runtime on virtual time and memory, for tests: nothing here waits for a real clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import trio
from attrs import evolve

from aiki_actors import engine as e
from aiki_actors.server import TimerSettings
from aiki_actors.worker import WorkerSettings
from aiki_sdk import AnyWorkflow, JsonValue, SeededIds, SeededRng, TrioClock
from aiki_sdk.client import RunHandle
from aiki_trio import RuntimeSettings
from aiki_trio._runtime import Runtime, open_runtime

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
VIRTUAL = RuntimeSettings(blocked_after=None, timers=TimerSettings(clock_check=None))


def settings_with(
    *, warm_max: int = 1_000, limits: e.EngineLimits | None = None
) -> RuntimeSettings:
    """Return the settings for virtual time with so many warm runs."""
    changed = evolve(VIRTUAL, worker=WorkerSettings(warm_max=warm_max))
    return changed if limits is None else evolve(changed, limits=limits)


@asynccontextmanager
async def virtual_runtime(
    *workflows: AnyWorkflow, settings: RuntimeSettings = VIRTUAL, seed: int = 0
) -> AsyncGenerator[Runtime, None]:
    """Open a runtime in memory whose time is Trio's."""
    async with open_runtime(
        "memory://",
        workflows=workflows,
        settings=settings,
        clock=TrioClock(EPOCH),
        ids=SeededIds(seed),
        rng=SeededRng(seed),
    ) as runtime:
        yield runtime


@asynccontextmanager
async def file_runtime(path: Path, *workflows: AnyWorkflow) -> AsyncGenerator[Runtime, None]:
    """Open a runtime on a SQLite file, in real time; its tasks have little time to end."""
    hasty = RuntimeSettings(worker=WorkerSettings(shutdown_grace_s=0.5))
    async with open_runtime(f"sqlite:///{path}", workflows=workflows, settings=hasty) as runtime:
        yield runtime


async def kinds(handle: RunHandle[object]) -> list[str]:
    """Return the kinds of a run's entries, in order."""
    return [entry.kind for entry in await handle.history()]


async def bodies(handle: RunHandle[object], kind: str) -> list[dict[str, JsonValue]]:
    """Return the bodies of a run's entries of one kind."""
    return [dict(entry.body) for entry in await handle.history() if entry.kind == kind]


async def settled() -> None:
    """Wait until nothing moves without the clock."""
    await trio.testing.wait_all_tasks_blocked()
