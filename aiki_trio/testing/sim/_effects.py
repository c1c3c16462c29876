"""The effects of a simulation: every attempt of every task, as the outside world saw it.

An attempt that begins although the journal has its result already, in a worker that holds the
claim, is a broken promise: it is reported in the step in which it begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
from attrs import define, field

from aiki_actors.worker import Proceed, idempotency_key
from aiki_sdk import AnyTask, current_task

from ._disk import Disk, short
from ._node import Node


@define(eq=False)
class TaskAttempt:
    """One attempt of a task, as the code that was called saw it.

    Attributes:
        task: the task's name.
        args: its positional arguments.
        run_id: the run that made the call.
        attempt: 1 for the first attempt of the call.
        idempotency_key: the same for every attempt of one call, different for any other call.
        worker: the worker's life that executed it.
        at: virtual seconds since the simulation began.
        done: it returned.

    """

    task: str
    args: tuple[Any, ...]
    run_id: str
    attempt: int
    idempotency_key: str
    worker: str
    at: float
    done: bool = field(default=False, init=False)


@define(eq=False)
class Effects:
    """The log of all attempts.

    Attributes:
        attempts: in the order in which they began.
        once: names of the tasks that may run at most once.
        poison: runs each of whose tasks kills the worker that executes it.

    """

    disk: Disk
    once: set[str] = field(factory=lambda: set[str](), init=False)
    poison: set[str] = field(factory=lambda: set[str](), init=False)
    attempts: list[TaskAttempt] = field(factory=lambda: list[TaskAttempt](), init=False)

    async def invoke(
        self,
        node: Node,
        worker_id: str,
        task: AnyTask,
        args: tuple[Any, ...],
        _kwargs: Mapping[str, Any],
        proceed: Proceed,
    ) -> Any:
        """Run one attempt, and keep what became of it."""
        context = current_task()
        run_id, key = context.run_id, context.idempotency_key
        made = TaskAttempt(
            task.name, args, run_id, context.attempt, key, node.name, trio.current_time()
        )
        if task.settings.at_most_once:
            self.once.add(task.name)
        self._check(made, worker_id)
        self.attempts.append(made)
        self.disk.trace.note(
            node.name, f"{short(run_id)} begins {task.name} {key[:6]} #{context.attempt}"
        )
        if run_id in self.poison:
            node.kill("by a task of a run that is poison")
            node.check()
        value = await proceed()
        node.check()
        made.done = True
        return value

    def _check(self, made: TaskAttempt, worker_id: str) -> None:
        oracle = self.disk.oracles.get(made.run_id)
        if oracle is None or oracle.worker_id != worker_id or made.run_id in self.disk.rewound:
            return
        for call, seq in oracle.visible.items():
            if idempotency_key(made.run_id, call) == made.idempotency_key:
                self.disk.report(
                    "P2",
                    f"run {made.run_id}: {call} begins again (attempt {made.attempt}) in "
                    f"{made.worker}, and its result is entry {seq}",
                )

    def of(self, run_id: str) -> list[TaskAttempt]:
        """Return the attempts of one run, in the order in which they began."""
        return [attempt for attempt in self.attempts if attempt.run_id == run_id]
