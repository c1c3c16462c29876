"""The updates of all runs, in the test kit: from one life of the runtime to the next."""

from __future__ import annotations

import pytest

from aiki_sdk import AllUpdates, Run, Unavailable, workflow
from aiki_trio.testing import Aiki


@workflow("nothing", "1.0.0")
async def nothing(run: Run) -> None: ...


async def drained(updates: AllUpdates) -> None:
    async for _ in updates:
        continue


async def test_updates_go_on_in_the_next_life_and_say_that_some_may_be_missing(aiki: Aiki) -> None:
    async with aiki.client.updates(workflow=nothing) as updates:
        first = await aiki.start(nothing)
        assert (await anext(updates)).run_id == first.id
        await aiki.restart()
        with pytest.raises(Unavailable, match="may have been missed"):
            await drained(updates)
        second = await aiki.start(nothing)
        assert (await anext(updates)).run_id == second.id
