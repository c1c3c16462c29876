"""Runs that have ended: what they refuse, what their error says, how long they are kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import trio
from attrs import evolve

from aiki_actors.server import KeeperSettings
from aiki_sdk import Event, IllegalTransition, NotFound, Run, RunEnded, RunFailed, workflow
from aiki_sdk.client import RunHandle
from tests.integration.runtimes import VIRTUAL, virtual_runtime

go = Event("go", str)
DAY_S = 86_400.0


@workflow(name="ending", version="1.0.0", events=[go])
async def ending(run: Run, how: str) -> str:
    if how == "fail":
        raise ValueError(how)
    if how == "nursery":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ending.function, run, "fail")
    if how == "wait":
        return await run.wait(go)
    return how


COMMANDS: dict[str, Callable[[RunHandle[Any]], Awaitable[object]]] = {
    "pause": lambda handle: handle.pause(),
    "resume": lambda handle: handle.resume(),
    "cancel": lambda handle: handle.cancel(),
    "terminate": lambda handle: handle.terminate(),
    "wake": lambda handle: handle.wake(),
    "requeue": lambda handle: handle.requeue(),
    "retry": lambda handle: handle.retry(),
    "send event 'go'": lambda handle: handle.send(go, "now"),
}


@pytest.mark.parametrize(
    ("how", "status"), [("ok", "completed"), ("fail", "failed"), ("cancel", "cancelled")]
)
async def test_an_ended_run_says_so_to_every_command(
    how: str, status: str, autojump_clock: object
) -> None:
    harmless = {"failed": ("retry",), "cancelled": ("cancel", "terminate")}.get(status, ())
    async with virtual_runtime(ending) as runtime:
        handle = await runtime.client.start(ending, "wait" if how == "cancel" else how)
        if how == "cancel":
            await handle.cancel()
        await handle.wait(status)
        for command, give in COMMANDS.items():
            if command in harmless:
                continue
            with pytest.raises(RunEnded, match=status) as caught:
                await give(handle)
            ended = caught.value
            assert (ended.command, ended.status) == (command, status)
            assert ended.details["run_id"] == handle.id
            assert handle.id in str(ended)
        (outcome,) = await runtime.client.bulk("pause", run_ids=[handle.id])
        assert isinstance(outcome.error, RunEnded)
        assert outcome.error.status == status


async def test_what_a_live_run_refuses_is_told_apart(autojump_clock: object) -> None:
    async with virtual_runtime(ending) as runtime:
        handle = await runtime.client.start(ending, "wait")
        await handle.wait("awaiting_event")
        with pytest.raises(IllegalTransition) as caught:
            await handle.retry()
        assert not isinstance(caught.value, RunEnded)
        assert (caught.value.command, caught.value.status) == ("retry", "awaiting_event")


async def test_a_failure_in_a_nursery_of_the_workflow_is_named(autojump_clock: object) -> None:
    async with virtual_runtime(ending) as runtime:
        handle = await runtime.client.start(ending, "nursery")
        with pytest.raises(RunFailed, match="ValueError: fail"):
            await handle.result()
        error = (await handle.info()).error
        assert error is not None
        assert error.message == "Exceptions from Trio nursery (1 sub-exception): ValueError: fail"


@workflow(name="brief", version="1.0.0", retention=timedelta(days=1))
async def brief(run: Run) -> None:
    """Is kept for a shorter time than others."""


@workflow(name="audited", version="1.0.0", retention=timedelta(days=300))
async def audited(run: Run) -> None:
    """Is kept for longer."""


@workflow(name="audited", version="1.1.0", retention=timedelta(days=10))
async def audited_shorter(run: Run) -> None:
    """Is kept for as long as the other version says."""


async def kept(handles: dict[str, RunHandle[Any]]) -> list[str]:
    """Return the names of the runs that are there."""
    found: list[str] = []
    for name, handle in handles.items():
        try:
            await handle.info()
        except NotFound:
            continue
        found.append(name)
    return found


@pytest.mark.parametrize("default", [timedelta(days=30), None])
@pytest.mark.parametrize("own", [True, False])
async def test_a_workflow_s_own_retention_counts_for_its_runs(
    default: timedelta | None, own: bool, autojump_clock: object
) -> None:
    keeper = KeeperSettings(sweep_s=3_600, retention=default, own_retention=own)
    workflows = (brief, audited, audited_shorter, ending)
    async with virtual_runtime(*workflows, settings=evolve(VIRTUAL, keeper=keeper)) as runtime:
        client = runtime.client
        handles: dict[str, RunHandle[Any]] = {
            "brief": await client.start(brief),
            "1.0.0": await client.start(audited),
            "1.1.0": await client.start(audited_shorter),
            "plain": await client.start(ending, "ok"),
        }
        for handle in handles.values():
            await handle.result()
        everything = list(handles)
        await trio.sleep(0.5 * DAY_S)
        assert await kept(handles) == everything
        await trio.sleep(DAY_S)
        assert await kept(handles) == (everything[1:] if own else everything)
        await trio.sleep(30 * DAY_S)
        after_default = [] if default is not None else ["plain"]
        if not own:
            assert await kept(handles) == ([] if default is not None else everything)
            return
        assert await kept(handles) == ["1.0.0", "1.1.0", *after_default]
        await trio.sleep(300 * DAY_S)
        assert await kept(handles) == after_default
