"""Two workers in one loop, as in a host application or a simulation: each minds its own runs."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

import trio
from attrs import Factory, define

from aiki_actors.worker import Branch, BranchTracker
from aiki_actors.worker._branches import Tracks
from aiki_sdk import AnyTask, current_workflow


@define(eq=False)
class Code:
    """An execution, as its tracker sees it."""

    tracker: BranchTracker
    tracks: Tracks = Factory(Tracks)

    def branched(self) -> None:
        """Nothing to do."""

    def quiet(self) -> None:
        """Nothing to do."""

    def call_task(
        self, branch: Branch, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        raise AssertionError("this code calls no tasks")


async def test_branches_are_named_once_however_many_workers_watch() -> None:
    """The second worker took the branch that the first had named for one of its own."""
    own, other = BranchTracker(), BranchTracker()
    code = Code(own)
    paths: list[str] = []

    async def branch() -> None:
        found = current_workflow.get()
        assert isinstance(found, Branch)
        paths.append(found.path)
        await trio.lowlevel.checkpoint()

    for tracker in (own, other):
        trio.lowlevel.add_instrument(tracker)
    token = current_workflow.set(Branch(code))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(branch)
            nursery.start_soon(branch)
            assert code.tracks.live == 3
    finally:
        current_workflow.reset(token)
        own.unfollow(code)
        for tracker in (own, other):
            trio.lowlevel.remove_instrument(tracker)
    assert sorted(paths) == ["0", "1"]
