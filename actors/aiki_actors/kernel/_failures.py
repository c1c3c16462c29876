"""Which exceptions are an actor's failure, and which must go on upward.

Exception                      the actor's failure; its supervisor decides
Cancelled, scope cancelled     goes on upward, as Trio wants it
Cancelled, nothing cancelled   a stray one, raised again by user code: a failure
other BaseException            (KeyboardInterrupt, SystemExit) goes on upward and ends the system
"""

import math
from typing import cast

import trio
from attrs import frozen


@frozen(eq=False)
class ChildFailure:
    """One failure of an actor or supervisor, for the hook `on_child_failure`."""

    path: str
    error: BaseException


def current_task_is_cancelled() -> bool:
    """Say whether a scope around the current task is cancelled."""
    return trio.current_effective_deadline() == -math.inf


def split_cancelled(
    exc: BaseException,
) -> tuple[BaseException | None, BaseException | None]:
    """Split what left a task into (its failure, what must go on upward)."""
    if isinstance(exc, trio.Cancelled):
        return (None, exc) if current_task_is_cancelled() else (exc, None)
    if isinstance(exc, Exception):
        return exc, None
    if not isinstance(exc, BaseExceptionGroup):
        return exc, exc
    group = cast("BaseExceptionGroup[BaseException]", exc)
    cancelled, rest = group.split(trio.Cancelled)
    if rest is None:
        return (None, group) if current_task_is_cancelled() else (group, None)
    if not isinstance(rest, Exception):
        return rest, group
    if cancelled is not None and current_task_is_cancelled():
        return rest, cancelled
    return rest, None


def leaves(exc: BaseException) -> list[BaseException]:
    """Return the exceptions in a group, however deep, in order."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return [leaf for part in group.exceptions for leaf in leaves(part)]
    return [exc]


def simplest(exc: BaseException) -> BaseException:
    """Return the one exception that a group is about, or a flat group if there are several."""
    found = leaves(exc)
    if len(found) == 1:
        return found[0]
    return BaseExceptionGroup("a system of actors ended with several errors", found)
