"""The report of a divergence: the code no longer makes the calls its journal holds.

It names the calls that were recorded and not made, the call that was made and not recorded, where
in today's code each of them is, what was probably changed, and what can be done about it. Values
are shown only where the caller says so: production logs hold no payloads.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import trio
from attrs import Factory, frozen

import aiki_sdk
from aiki_actors.engine import Call, ChildStarted, Micros, TaskFailed, TaskSucceeded
from aiki_sdk import Divergence, JsonValue, dumps

from ._replica import Record, Replica
from ._source_lines import mentions

OURS: Final = tuple(
    f"{Path(file).parent}{os.sep}" for file in (aiki_sdk.__file__, __file__, trio.__file__)
)
"""Folders whose frames are machinery, not the user's code."""

SHOWN_MAX: Final = 10
"""Recorded calls that the message lists; the rest is counted."""

VALUE_MAX: Final = 120
"""Characters of a value that are shown."""

HASH_SHOWN: Final = 8

SAFE: Final = """\
Safe edits: reordering calls of different tasks or inputs, removing calls at the end, adding calls
  after all recorded ones, adding or changing sleeps and waits, changing a task's options or body.
Not safe while runs are under way: inserting a task or child before recorded ones, renaming it,
  changing its input, and moving it to another branch where calls are equal.
What to do: take the edit back, or give @workflow a new version= and keep the old code registered
  under the old version for the runs that are on it."""


@frozen
class Sight:
    """What the report may look at besides the journal.

    Attributes:
        function: the workflow's function, for source lines; None: none are shown.
        inputs: inputs of the calls that the code made, by address.
        values: whether inputs and recorded results are shown.

    """

    function: Callable[..., Any] | None = None
    inputs: Mapping[str, JsonValue] = Factory(lambda: dict[str, JsonValue]())
    values: bool = False

    def places(self, call: Call) -> list[str]:
        """Return where today's code calls the same task or child."""
        kind, name, _hash = split_address(call.address)
        return [] if self.function is None else mentions(self.function, kind, name)


BLIND: Final = Sight()


def split_address(address: str) -> tuple[str, str, str]:
    """Split an address into kind, name and what tells calls of that name apart."""
    kind, _, rest = address.partition(":")
    name, _, suffix = rest.partition(":")
    return kind, name, suffix


def divergence(
    run_id: str,
    replica: Replica,
    calls: Sequence[tuple[Call, str | None]],
    sight: Sight = BLIND,
) -> Divergence:
    """Describe why none of `calls` may happen: recorded ones are left over."""
    left = replica.left_over()
    counted = [record for record in replica.records.values() if record.counted]
    lines = [f"run {run_id}: the workflow's code does not fit its journal any more.", ""]
    lines += [f"Recorded, but not asked for ({len(left)} of {len(counted)}):"]
    for record in left[:SHOWN_MAX]:
        lines += _recorded(record, sight)
    if len(left) > SHOWN_MAX:
        lines.append(f"  … and {len(left) - SHOWN_MAX} more")
    lines += ["", "Asked for, but not recorded:"]
    for call, where in calls:
        lines += _asked(call, where, sight)
    lines += ["", "What was probably changed:"]
    lines += [f"  {guess}" for guess in guesses(left, [call for call, _ in calls], sight)]
    lines += ["", SAFE]
    return Divergence("\n".join(lines))


def _recorded(record: Record, sight: Sight) -> list[str]:
    body = record.resolution
    how = "not ended"
    value: JsonValue = None
    if isinstance(body, TaskSucceeded):
        how, value = f"succeeded at attempt {body.attempt}", body.output
    elif isinstance(body, TaskFailed):
        how = f"failed at attempt {body.attempt}"
    elif isinstance(body, ChildStarted):
        how = f"started as {body.child_id}"
    elif record.attempts:
        how = f"{record.attempts} attempts failed"
    at = f", {_time(record.at)}" if record.at else ""
    lines = [f"  seq {record.resolved_at or '?'}  {named(record.call)}: {how}{at}"]
    if sight.values and isinstance(body, TaskSucceeded):
        lines.append(f"         its result: {_shown(value)}")
    if sight.function is not None:
        places = sight.places(record.call)
        today = ", ".join(places) if places else "nowhere any more"
        lines.append(f"         called today at: {today}  (the journal keeps no source lines)")
    return lines


def _asked(call: Call, where: str | None, sight: Sight) -> list[str]:
    lines = [f"  {named(call)}{f' at {where}' if where else ''}"]
    if sight.values and call.address in sight.inputs:
        lines.append(f"         its input: {_shown(sight.inputs[call.address])}")
    return lines


def named(call: Call) -> str:
    """Name a call for people: kind, name, the beginning of its input's hash, branch, number."""
    kind, name, suffix = split_address(call.address)
    if kind == "child":
        version, _, suffix = suffix.partition(":")
        name = f"{name}@{version}"
    inner = f" (input {suffix[:HASH_SHOWN]}…)" if len(suffix) > HASH_SHOWN else ""
    inner = inner or (f" ({suffix})" if suffix else "")
    branch = f" in branch {call.branch}" if call.branch else ""
    number = f", call {call.index + 1} of this kind" if call.index else ""
    return f"{kind} {name!r}{inner}{branch}{number}"


def guesses(left: Sequence[Record], asked: Sequence[Call], sight: Sight = BLIND) -> list[str]:
    """Say which edit probably made the difference, one sentence for each new call."""
    recorded = [split_address(record.call.address) for record in left]
    found: dict[str, None] = {}
    for call in asked:
        kind, name, suffix = split_address(call.address)
        same = [entry for entry in recorded if entry[:2] == (kind, name)]
        if same:
            found[_changed(kind, name, suffix, same[0][2])] = None
            continue
        first = left[0].call
        was_kind, was, _ = split_address(first.address)
        gone = sight.function is not None and not sight.places(first)
        if gone and was_kind == kind:
            found[
                f"{kind} {was!r} was renamed to {name!r}, or replaced by it: today's code calls "
                f"no {was!r} any more."
            ] = None
        else:
            found[
                f"{kind} {name!r} was inserted before {was_kind} {was!r}, or a condition leads "
                "another way than it did."
            ] = None
    return list(found)


def _changed(kind: str, name: str, suffix: str, was: str) -> str:
    if kind == "child" and suffix.partition(":")[0] != was.partition(":")[0]:
        old, new = was.partition(":")[0], suffix.partition(":")[0]
        return f"child {name!r} is started in version {new}; recorded was version {old}."
    return (
        f"The input of {kind} {name!r} changed: recorded {was[-64:][:HASH_SHOWN]}…, now "
        f"{suffix[-64:][:HASH_SHOWN]}… (or it was called once more, before the recorded call)."
    )


def _shown(value: JsonValue) -> str:
    text = dumps(value).decode().strip()
    return text if len(text) <= VALUE_MAX else f"{text[:VALUE_MAX]}…"


def _time(at: Micros) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).isoformat()


def calling_line(*machinery: str) -> str | None:
    """Find the line of the user's code that is being executed now: `file.py:12`.

    Args:
        machinery: further folders whose frames are not the user's, each ending with a separator.

    """
    frame = inspect.currentframe()
    while frame is not None and _ours(frame.f_code, machinery):
        frame = frame.f_back
    return _place(frame)


def waiting_line(task: trio.lowlevel.Task | None, *machinery: str) -> str | None:
    """Find the line of the user's code at which a task waits; see `calling_line`."""
    coroutine: Any = None if task is None else task.coro
    found: FrameType | None = None
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None)
        if frame is not None and not _ours(frame.f_code, machinery):
            found = frame
        coroutine = getattr(coroutine, "cr_await", None)
    return _place(found)


def _ours(code: CodeType, machinery: tuple[str, ...] = ()) -> bool:
    return code.co_filename.startswith(OURS + machinery)


def _place(frame: FrameType | None) -> str | None:
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
