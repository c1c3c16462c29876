"""What may be put around a worker's work by whoever runs it, such as a test kit.

Hooks are plain functions given when the worker is made. Without them nothing is called and nothing
is slower; none of them may reach the journal other than by what a task returns or raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from attrs import frozen

from aiki_sdk import AnyTask, AnyWorkflow

Proceed = Callable[[], Awaitable[Any]]
"""Runs the task's own function, wherever its settings say, and returns its result."""


class Invoke(Protocol):
    """Runs one attempt of a task in place of the worker."""

    async def __call__(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: Mapping[str, Any], proceed: Proceed
    ) -> Any:
        """Return the attempt's result, or raise what it fails with; `current_task()` is set."""
        ...


@frozen
class WorkerHooks:
    """The hooks of one worker.

    Attributes:
        invoke: runs each attempt of each task; None: the worker calls the task's function itself.
        on_child: hears of a workflow before the code starts a child of it, each time.

    """

    invoke: Invoke | None = None
    on_child: Callable[[AnyWorkflow], None] | None = None
