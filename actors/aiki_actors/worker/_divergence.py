"""The report of a divergence: the code no longer makes the calls its journal holds.

It names the calls that were recorded and not made, the call that was made and not recorded, where
in the code that was, and what can be done about it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import trio

import aiki_sdk
from aiki_actors.engine import Call
from aiki_sdk import Divergence

from ._replica import Replica

OURS: Final = tuple(
    str(Path(file).resolve().parent) for file in (aiki_sdk.__file__, __file__, trio.__file__)
)
"""Folders whose frames are machinery, not the user's code."""

SHOWN_MAX: Final = 10
"""Recorded calls that the message lists; the rest is counted."""


def divergence(
    run_id: str, replica: Replica, calls: Sequence[tuple[Call, str | None]]
) -> Divergence:
    """Describe why none of `calls` may happen: recorded ones are left over."""
    left = replica.left_over()
    lines = [f"run {run_id}: the workflow's code does not fit its journal any more."]
    lines += ["Recorded, but not asked for:"]
    lines += [f"  {_name(record.call)} (seq {record.resolved_at})" for record in left[:SHOWN_MAX]]
    if len(left) > SHOWN_MAX:
        lines.append(f"  … and {len(left) - SHOWN_MAX} more")
    lines.append("Asked for, but not recorded:")
    lines += [f"  {_name(call)}{f' at {where}' if where else ''}" for call, where in calls]
    lines.append(
        "Calls may be reordered, removed at the end, or added after all recorded ones. Inserting "
        "one before them, or changing a recorded call's name or input, needs a new version of the "
        "workflow: give @workflow a new version= and keep the old one for the runs that are on it."
    )
    return Divergence("\n".join(lines))


def _name(call: Call) -> str:
    branch = f" in branch {call.branch}" if call.branch else ""
    number = f", call {call.index + 1} of this kind" if call.index else ""
    return f"{call.address}{branch}{number}"


def calling_line() -> str | None:
    """Find the line of the user's code that is being executed now: `file.py:12`."""
    frame = inspect.currentframe()
    while frame is not None and _ours(frame.f_code):
        frame = frame.f_back
    return _place(frame)


def waiting_line(task: trio.lowlevel.Task | None) -> str | None:
    """Find the line of the user's code at which a task waits: `file.py:12`."""
    coroutine: Any = None if task is None else task.coro
    found: FrameType | None = None
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None)
        if frame is not None and not _ours(frame.f_code):
            found = frame
        coroutine = getattr(coroutine, "cr_await", None)
    return _place(found)


def _ours(code: CodeType) -> bool:
    return code.co_filename.startswith(OURS)


def _place(frame: FrameType | None) -> str | None:
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
