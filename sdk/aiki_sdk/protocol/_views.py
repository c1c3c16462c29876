"""What is answered about runs: wire values that clients, the gateway and the server share.

Everything here is a frozen value made of JSON values, words of `_status` and times, so that it
means the same in one process and over HTTP. Times are aware UTC datetimes; durations are seconds
as floats. `seq` is a run's place in its own journal, from 1; order is always by it, never by time.

`Problem` is an error as a value: what a batch answers for the one item that could not be done.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Self

from attrs import Factory, frozen

from aiki_sdk._error_info import ErrorInfo
from aiki_sdk._errors import AikiError, error_from_wire
from aiki_sdk._json import JsonValue

from ._status import Priority, RunStatus, WaitKind


@frozen(kw_only=True)
class WaitInfo:
    """One thing that a run waits for.

    Attributes:
        kind: what sort of thing.
        name: the name of the sleep, event or task, or the id of the child.
        due_at: when the wait ends by itself; None: only what it waits for ends it.
        since: when it began.
    """

    kind: WaitKind
    name: str
    due_at: datetime | None = None
    since: datetime


@frozen(kw_only=True)
class RunSummary:
    """A run in a list: what is indexed, without payloads and waits.

    Attributes:
        attempt: attempt of the whole run, from 1.
        due_at: when something of the run is due by itself next; None: it needs a push.
    """

    id: str
    namespace: str
    workflow: str
    version: str
    status: RunStatus
    reference_id: str | None = None
    parent_id: str | None = None
    pool: str = "default"
    priority: Priority = Priority.NORMAL
    labels: Mapping[str, str] = Factory(lambda: dict[str, str]())
    attempt: int = 1
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None


@frozen
class ForkPoint:
    """One end of a fork, as seen from the other: the run there, and the last entry they share.

    Attributes:
        run_id: the run at the other end.
        at: seq, in the older run's journal, of the last entry that the fork was made of.
    """

    run_id: str
    at: int


@frozen(kw_only=True)
class RunInfo(RunSummary):
    """All that is known of one run now, its journal aside.

    Attributes:
        waits: every open wait, the oldest first; empty unless the run waits.
        input: what it was started with, every parameter by name.
        output: what it returned, once completed.
        error: what it failed with, once failed; why it stalled, if that was an error.
        reason: why it was cancelled or paused, or is stalled; None if no reason was given.
        continued_as: id of the run that went on in its place.
        continued_from: id of the run in whose place it goes on.
        forked_from: the run of whose history it was made.
        forks: the runs that were made of its history, in order.
        values: the last value that it published under each key.
        terminated: whether it was cancelled at once, without running its code.
        worker_id: who executes it now; None if nobody does.
        epoch: number of its last claim, 0 before the first.
        seq: the last entry of its journal.
        children: ids of its child runs, in order of their start; of a child that is an existing
            run, the name that this one has for it (see `Run.start_child`).
    """

    waits: tuple[WaitInfo, ...] = ()
    input: JsonValue = None
    output: JsonValue = None
    error: ErrorInfo | None = None
    reason: str | None = None
    continued_as: str | None = None
    continued_from: str | None = None
    forked_from: ForkPoint | None = None
    forks: tuple[ForkPoint, ...] = ()
    values: Mapping[str, JsonValue] = Factory(lambda: dict[str, JsonValue]())
    terminated: bool = False
    worker_id: str | None = None
    epoch: int = 0
    seq: int
    children: tuple[str, ...] = ()


@frozen
class RunPage:
    """One page of a list of runs, the newest first; `cursor` leads to the next, None: the last."""

    runs: tuple[RunSummary, ...]
    cursor: str | None = None


@frozen
class JournalEntry:
    """One step of a run's history; it never changes.

    Attributes:
        kind: what happened, in the past tense: `task-succeeded`.
        body: the facts; which ones depends on `kind`.
    """

    seq: int
    at: datetime
    kind: str
    body: Mapping[str, JsonValue]


@frozen(kw_only=True)
class Update:
    """One change of a run, as streamed to who watches it.

    Attributes:
        seq: the journal entry that it tells of. Live facts that no journal keeps (a task started)
            carry the seq of the last entry before them, and are not told again to who resumes.
        kind: what happened, as in the journal.
        status: the run's status after it.
        body: the facts, where the stream carries them.
        live: it tells of something that no journal keeps.
    """

    run_id: str
    seq: int
    at: datetime
    kind: str
    status: RunStatus
    workflow: str
    reference_id: str | None = None
    body: Mapping[str, JsonValue] | None = None
    live: bool = False


@frozen(kw_only=True)
class Outcome:
    """How a run ended; which fields are set follows from `status`, which is terminal.

    Attributes:
        output: what a completed run returned.
        error: what a failed run failed with.
        reason: why a cancelled run was cancelled, if a reason was given.
        continued_as: id of the run that went on in place of a completed one.
        terminated: whether a cancelled run was ended at once, without running its code.
    """

    status: RunStatus
    output: JsonValue = None
    error: ErrorInfo | None = None
    reason: str | None = None
    continued_as: str | None = None
    terminated: bool = False


@frozen
class StartResult:
    """The run that a start led to; `created` tells whether it is a new one."""

    run_id: str
    created: bool = True


@frozen
class Problem:
    """An `AikiError` as a value."""

    code: str
    message: str
    details: Mapping[str, JsonValue] = Factory(lambda: dict[str, JsonValue]())

    @classmethod
    def from_error(cls, error: AikiError) -> Self:
        """Take an error down."""
        return cls(error.code, error.message, dict(error.details))

    def to_error(self) -> AikiError:
        """Rebuild the error, ready to be raised."""
        return error_from_wire(self.code, self.message, self.details)


@frozen
class EventReceipt:
    """An event was acknowledged: it is durable and will be delivered once.

    Attributes:
        seq: its journal entry; None for a duplicate whose first sending is no longer known by seq.
        duplicate: whether its reference id had been accepted before; then this one was dropped.
    """

    seq: int | None
    duplicate: bool = False


@frozen
class WorkflowInfo:
    """A workflow that the server knows.

    Attributes:
        events: the events that it declares; None: the server does not know, and so for `questions`.
    """

    name: str
    version: str
    events: tuple[str, ...] | None = None
    questions: tuple[str, ...] | None = None


class HealthStatus(StrEnum):
    """Whether the server does its work."""

    OK = "ok"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"


@frozen
class Health:
    """How the server is.

    Attributes:
        status: `ok`; `degraded`: it works, something is wrong; `unavailable`: it does not.
        problems: what is wrong, in words, by component: `{"redis": "connection refused"}`.
        version: the server's release.
    """

    status: HealthStatus
    problems: Mapping[str, str] = Factory(lambda: dict[str, str]())
    version: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.status is HealthStatus.OK


@frozen(kw_only=True)
class TreeNode:
    """One actor or supervisor of the live tree, at one moment.

    Attributes:
        path: its place, such as `/runtime/runs/run_01J…`.
        state: what it is doing, in a word.
        mailbox_depth: messages waiting for it.
        restarts: how often it was restarted in all.
        describe: what it says about itself.
        children: what it supervises, in order of their start.
    """

    name: str
    kind: str
    path: str
    state: str
    mailbox_depth: int = 0
    restarts: int = 0
    describe: str = ""
    children: "tuple[TreeNode, ...]" = ()
