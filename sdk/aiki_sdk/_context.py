"""Where code is running: inside a workflow, inside a task, or in neither.

Two context variables say so. The runtime sets `current_workflow` around a workflow's code and
`current_task_context` around a task's, and **unsets `current_workflow` around a task's code**: a
task that calls another task calls a plain function, for only workflows are replayed.
"""

import logging
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from attrs import define, field

from aiki_sdk._errors import NotInTask
from aiki_sdk._json import JsonValue

if TYPE_CHECKING:
    from aiki_sdk._task import AnyTask

Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[logging.Logger]"


class WorkflowPort(Protocol):
    """What a running workflow offers to the tasks that its code calls."""

    def call_task(
        self, task: "AnyTask", args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Make a durable call.

        Called synchronously, at the call and not at the `await`, so that the call's index is taken
        in call order. What it returns is awaited at most once. A real coroutine, so that tasks can
        be handed to `nursery.start_soon`.

        Args:
            task: the task, with the options that hold for this call (`task.settings`).
            args: positional arguments, not yet converted.
            kwargs: keyword arguments, not yet converted.
        """
        ...


current_workflow: Final[ContextVar[WorkflowPort | None]] = ContextVar(
    "aiki_current_workflow", default=None
)
"""The workflow whose code is running, or None outside workflows and inside tasks."""


def _nobody_listens(_details: JsonValue) -> None:
    """Stand in where no runtime is: in unit tests of a task."""


@define(eq=False)
class TaskContext:
    """What a task may know about the call that it serves. Get it with `current_task()`.

    Attributes:
        name: the task's name.
        run_id: the run that made the call.
        attempt: 1 for the first attempt; counts on across restarts.
        idempotency_key: the same for every attempt and every replay of this call, different for
            any other call; give it to services that take one.
        logger: writes with the run's id, the task's name and the attempt.
        last_heartbeat: what the last heartbeat of this or an earlier attempt carried, or None.
    """

    name: str
    run_id: str
    attempt: int
    idempotency_key: str
    logger: Logger
    last_heartbeat: JsonValue = None
    _on_heartbeat: Callable[[JsonValue], None] = field(
        default=_nobody_listens, kw_only=True, alias="on_heartbeat"
    )
    _on_progress: Callable[[JsonValue], None] = field(
        default=_nobody_listens, kw_only=True, alias="on_progress"
    )

    def heartbeat(self, details: object = None) -> None:
        """Say that the task is alive, and how far it is.

        The next attempt finds `details` as `last_heartbeat` if this one fails or is lost; of an
        attempt that is lost with its worker, what was said in its last 30 seconds may be missing.
        May be called from any thread of the task.

        Args:
            details: anything that can be converted; keep it small. Without, what an earlier
                heartbeat carried stays as it is.

        Raises:
            PayloadError: if `details` cannot be converted.
            NotInTask: if the attempt is over, because it timed out or was cancelled: what the
                function still does in its thread does not count, so it should return.
        """
        from aiki_sdk.payload import encode_payload

        json = encode_payload(details, what="heartbeat details")
        if json is not None:
            self.last_heartbeat = json
        self._on_heartbeat(json)

    def progress(self, value: object) -> None:
        """Show something to those who watch the run right now, as an update `task-progress`.

        Nothing of it is kept: who comes later does not see it. May be called from any thread of the
        task, and as often as you like: nobody is waited for.

        Args:
            value: anything that can be converted; keep it small.

        Raises:
            PayloadError: if `value` cannot be converted.
            NotInTask: if the attempt is over, as for `heartbeat`.
        """
        from aiki_sdk.payload import encode_payload

        self._on_progress(encode_payload(value, what="progress"))


current_task_context: Final[ContextVar[TaskContext | None]] = ContextVar(
    "aiki_current_task", default=None
)
"""The context of the task whose code is running, or None outside tasks."""


def current_task() -> TaskContext:
    """Return the context of the running task.

    Raises:
        NotInTask: if no task is running, as when a task is tested as a plain function.
    """
    context = current_task_context.get()
    if context is None:
        message = (
            "current_task() was called outside a task; call it in the body of a @task function, "
            "and in unit tests set the context first with `with task_context(TaskContext(...)):`"
        )
        raise NotInTask(message)
    return context


@contextmanager
def task_context(context: TaskContext) -> Generator[TaskContext]:
    """Run the body of the `with` as the code of a task.

    The runtime uses it around every attempt; unit tests use it around a task that asks for
    `current_task()`. Inside, no workflow is seen.
    """
    task_token = current_task_context.set(context)
    workflow_token = current_workflow.set(None)
    try:
        yield context
    finally:
        current_workflow.reset(workflow_token)
        current_task_context.reset(task_token)
