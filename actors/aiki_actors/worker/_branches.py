"""Branches: which part of a workflow's code is running, and when all of it stands still.

Trio shuffles the tasks that are ready, so replay needs to know exactly when nothing of a run can
move by itself ("quiet"). Trio's instrument hooks say so: `task_scheduled` and `before_task_step`
count what is about to run, `after_task_step` and `task_exited` what has stopped (a task that ends
calls `task_exited` *instead of* `after_task_step`). The step hooks cost every task of the loop a
few microseconds, so they are installed only while some run has more than one branch; `task_spawned`
alone, paid per spawn, notices that.

A branch's path names it: the n-th task that the branch `p` spawns is `p.n`. The path travels in a
context variable, so a child of a child of a nursery passed around is still found.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import trio
from attrs import Factory, define
from trio.lowlevel import Task

from aiki_actors.engine import Call
from aiki_sdk import current_workflow

if TYPE_CHECKING:
    from aiki_sdk import AnyTask


class Tracked(Protocol):
    """What the tracker tells an execution about its branches."""

    tracks: Tracks
    tracker: BranchTracker

    def branched(self) -> None:
        """Hear that the code has a second branch now."""
        ...

    def quiet(self) -> None:
        """Hear that no branch can move by itself; called between two task steps."""
        ...

    def call_task(
        self, branch: Branch, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Make a durable call in that branch."""
        ...


@define(eq=False)
class Tracks:
    """The count of an execution's branches that can move; kept by `StepHooks` alone."""

    live: int = 1
    runnable: int = 0
    stepping: bool = False

    @property
    def quiet(self) -> bool:
        """Whether nothing of the run can move by itself."""
        return self.runnable == 0 and not self.stepping


@define(eq=False)
class Branch:
    """One branch of a workflow's code: the main one, or one task of a nursery inside it."""

    execution: Tracked
    path: str = ""
    spawned: int = 0
    calls: dict[str, int] = Factory(lambda: dict[str, int]())

    def next_call(self, address: str) -> Call:
        """Name the next call with this address in this branch."""
        index = self.calls.get(address, 0)
        self.calls[address] = index + 1
        return Call(address, self.path, index)

    def child(self) -> Branch:
        """Return the next branch that this one spawns."""
        number = self.spawned
        self.spawned += 1
        path = f"{self.path}.{number}" if self.path else str(number)
        return Branch(self.execution, path)

    def call_task(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Make a durable call (the SDK's `WorkflowPort`)."""
        return self.execution.call_task(self, task, args, kwargs)


class StepHooks(trio.abc.Instrument):
    """Counts the steps of branches. A hook must never raise: Trio would remove the instrument."""

    def __init__(self) -> None:
        self.owners: dict[Task, Tracked] = {}

    def task_scheduled(self, task: Task) -> None:
        """Count a branch that is about to run."""
        owner = self.owners.get(task)
        if owner is not None:
            owner.tracks.runnable += 1

    def before_task_step(self, task: Task) -> None:
        """Count a branch that runs now."""
        owner = self.owners.get(task)
        if owner is not None:
            owner.tracks.runnable -= 1
            owner.tracks.stepping = True

    def after_task_step(self, task: Task) -> None:
        """Count a branch that waits now."""
        owner = self.owners.get(task)
        if owner is not None:
            owner.tracks.stepping = False
            if owner.tracks.runnable == 0:
                owner.quiet()

    def task_exited(self, task: Task) -> None:
        """Count a branch that has ended."""
        owner = self.owners.pop(task, None)
        if owner is not None:
            tracks = owner.tracks
            tracks.live -= 1
            tracks.stepping = False
            if tracks.runnable == 0:
                owner.quiet()


class BranchTracker(trio.abc.Instrument):
    """Notices new branches, and counts their steps while there is more than one."""

    def __init__(self) -> None:
        self._steps = StepHooks()
        self._followed: list[Tracked] = []

    def task_spawned(self, task: Task) -> None:
        """Give a task that workflow code spawned its branch."""
        branch = task.context.get(current_workflow)
        if not isinstance(branch, Branch) or branch.execution.tracker is not self:
            return  # another worker in this loop follows its own runs
        nursery = task.parent_nursery
        opener = None if nursery is None else nursery.parent_task.context.get(current_workflow)
        if not isinstance(opener, Branch) or opener.execution is not branch.execution:
            # Started within a step of the workflow, but not in a nursery of it: an actor, say.
            task.context.run(current_workflow.set, None)
            return
        child = branch.child()
        task.context.run(current_workflow.set, child)
        execution = branch.execution
        if execution not in self._followed:
            self._follow(execution)
            execution.branched()
        execution.tracks.live += 1
        self._steps.owners[task] = execution

    def _follow(self, execution: Tracked) -> None:
        """Begin to count; called within a step of the execution's only branch so far."""
        self._followed.append(execution)
        execution.tracks.live, execution.tracks.runnable = 1, 0
        execution.tracks.stepping = True
        self._steps.owners[trio.lowlevel.current_task()] = execution
        if len(self._followed) == 1:
            trio.lowlevel.add_instrument(self._steps)

    def unfollow(self, execution: Tracked) -> None:
        """Stop counting: the execution has one branch again, or has ended."""
        if execution not in self._followed:
            return
        self._followed.remove(execution)
        owners = self._steps.owners
        for task in [task for task, owner in owners.items() if owner is execution]:
            del owners[task]
        if not self._followed:
            trio.lowlevel.remove_instrument(self._steps)
