"""`aiki explain`: one paragraph that says where a run is and what would move it.

Everything is read from the run's journal; only whether somebody has the database open is looked up
beside it. `explanation` is a pure function of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from attrs import frozen

from aiki_actors.storage import is_owned
from aiki_sdk import JournalEntry, RunInfo, RunStatus, SystemClock, WaitInfo, WaitKind
from aiki_sdk.protocol import to_wire

from ._command import Command
from ._connect import find_run, reading
from ._exit import ExitCode
from ._output import shown_json, shown_span, shown_time

_BEGINNINGS: Final[dict[RunStatus, tuple[str, ...]]] = {
    RunStatus.SCHEDULED: ("run-created",),
    RunStatus.QUEUED: ("run-queued", "run-created", "run-requeued", "run-retried", "claim-lost"),
    RunStatus.RUNNING: ("run-claimed",),
    RunStatus.PAUSED: ("run-paused",),
    RunStatus.STALLED: ("run-stalled",),
}
"""The entries that a status begins with, where it is not a wait that says since when."""


@frozen
class Situation:
    """What an explanation is made of.

    Attributes:
        info: the run.
        entries: its journal.
        now: the time.
        served: whether a runtime has the database open.
    """

    info: RunInfo
    entries: Sequence[JournalEntry]
    now: datetime
    served: bool

    @property
    def since(self) -> datetime:
        """When the run's status began."""
        kinds = _BEGINNINGS.get(self.info.status, ())
        for entry in reversed(self.entries):
            if entry.kind in kinds:
                return entry.at
        return min((wait.since for wait in self.info.waits), default=self.entries[-1].at)


def explanation(situation: Situation) -> str:
    """Return one paragraph: where the run is, what it waits for, since, until, what moves it."""
    info = situation.info
    reference = f", reference {info.reference_id!r}" if info.reference_id else ""
    attempt = f", attempt {info.attempt}" if info.attempt > 1 else ""
    who = f"Run {info.id} ({info.workflow} {info.version}{reference}{attempt})"
    if info.status.terminal:
        return " ".join([f"{who} {_ending(situation)}", *_afterwards(info)])
    parts = [f"{who} {_standing(situation)}", *_movers(situation)]
    if not situation.served:
        parts.append(
            "No runtime has the database open now, so nothing moves until one does: start "
            "`aiki dev` or your application."
        )
    return " ".join(parts)


async def explain_run(command: Command) -> ExitCode:
    """`aiki explain`: print the paragraph."""
    settings = command.settings
    async with reading(settings) as client:
        handle = await find_run(client, command.arguments.run)
        info = await handle.info(follow=False)
        entries = await handle.history()
    now = SystemClock().now()
    served = settings.url is not None or is_owned(settings.database_path)
    text = explanation(Situation(info, entries, now, served))
    if command.output.json:
        command.output.document({"run": to_wire(info), "served": served, "explanation": text})
    else:
        command.output.line(text)
    return ExitCode.OK


# --- Runs that go on ------------------------------------------------------------------------------


def _span(situation: Situation, at: datetime) -> str:
    return f"{shown_time(at)} UTC ({shown_span(situation.now - at)} ago)"


def _until(situation: Situation, at: datetime) -> str:
    if at <= situation.now:
        return f"{shown_time(at)} UTC, which has passed {shown_span(situation.now - at)} ago"
    return f"{shown_time(at)} UTC (in {shown_span(at - situation.now)})"


def _standing(situation: Situation) -> str:
    """Say what the run is doing, and since when."""
    info, since = situation.info, _span(situation, situation.since)
    match info.status:
        case RunStatus.SCHEDULED:
            assert info.due_at is not None, "a scheduled run has its time"
            return f"was created at {since} and is to begin at {_until(situation, info.due_at)}."
        case RunStatus.QUEUED:
            return f"has been ready since {since}; no worker has taken it yet."
        case RunStatus.RUNNING:
            last = situation.entries[-1]
            return (
                f"is being executed by {info.worker_id} since {since}; its last entry is "
                f"{last.seq}, {last.kind}, at {_span(situation, last.at)}."
            )
        case RunStatus.PAUSED:
            why = f" because {info.reason!r}" if info.reason else ""
            waits = f" Meanwhile it {_waits(situation)}." if info.waits else ""
            return f"was paused at {since}{why}.{waits}"
        case RunStatus.STALLED:
            error = f" ({info.error})" if info.error is not None else ""
            return f"cannot go on by itself since {since}: {info.reason}{error}."
        case _:
            return f"{_waits(situation)}."


def _waits(situation: Situation) -> str:
    return "waits " + ", and ".join(_wait(situation, wait) for wait in situation.info.waits)


def _wait(situation: Situation, wait: WaitInfo) -> str:
    since = _span(situation, wait.since)
    due = "" if wait.due_at is None else _until(situation, wait.due_at)
    match wait.kind:
        case WaitKind.SLEEP:
            return f"in the sleep {wait.name!r} since {since} until {due}"
        case WaitKind.EVENT:
            limit = f", giving up at {due}" if due else ", without a limit"
            return f"for the event {wait.name!r} since {since}{limit}"
        case WaitKind.CHILD:
            limit = f", giving up at {due}" if due else ""
            return f"for its child {wait.name} to end since {since}{limit}"
        case WaitKind.RETRY:
            return f"for the next attempt of {wait.name!r} since {since} until {due}"
        case WaitKind.TIMEOUT:
            return f"under the time limit {wait.name!r}, which began at {since} and ends at {due}"


def _movers(situation: Situation) -> list[str]:
    """Say what would move the run."""
    info = situation.info
    match info.status:
        case RunStatus.SCHEDULED:
            return ["It begins by itself at that time."]
        case RunStatus.QUEUED:
            text = (
                f"It goes on when a worker that has workflow {info.workflow!r} in version "
                f"{info.version!r} and serves the pool {info.pool!r} is free."
            )
            return [text]
        case RunStatus.RUNNING:
            return [
                "It goes on by itself when the task in flight, or the workflow's own code, is done."
            ]
        case RunStatus.PAUSED:
            return [f"It goes on after `aiki runs resume {info.id}`."]
        case RunStatus.STALLED:
            text = (
                f"Remove the cause, then `aiki runs requeue {info.id}`; or give it up with "
                f"`aiki runs cancel {info.id}`."
            )
            return [text]
        case _:
            return [_mover(info, wait) for wait in info.waits if wait.kind is not WaitKind.TIMEOUT]


def _mover(info: RunInfo, wait: WaitInfo) -> str:
    match wait.kind:
        case WaitKind.EVENT:
            return f"`aiki runs send {info.id} {wait.name} --data JSON` gives it what it waits for."
        case WaitKind.CHILD:
            return f"`aiki explain {wait.name}` says where that child is."
        case WaitKind.SLEEP:
            return (
                f"It wakes by itself, or at once with `aiki runs wake {info.id} "
                f"--sleep {wait.name}`."
            )
        case _:
            return "The next attempt begins by itself."


# --- Runs that have ended -------------------------------------------------------------------------


def _ending(situation: Situation) -> str:
    info = situation.info
    assert info.ended_at is not None, "an ended run has its time"
    when = _span(situation, info.ended_at)
    if info.continued_as is not None:
        return f"ended at {when} and goes on as run {info.continued_as}."
    match info.status:
        case RunStatus.COMPLETED:
            return f"completed at {when} and returned {_short(shown_json(info.output))}."
        case RunStatus.FAILED:
            return f"failed at {when}: {info.error}."
        case _:
            how = "was terminated" if info.terminated else "was cancelled"
            why = f": {info.reason}" if info.reason else ""
            return f"{how} at {when}{why}."


def _afterwards(info: RunInfo) -> list[str]:
    if info.continued_as is not None:
        return [f"`aiki explain {info.continued_as}` says where that one is."]
    if info.status is RunStatus.FAILED:
        return [
            f"`aiki runs retry {info.id}` sends it round again; it keeps what it has completed."
        ]
    return ["Nothing moves it any more."]


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
