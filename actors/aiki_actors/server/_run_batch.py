"""What one turn of a run actor's mailbox has decided and not yet made durable."""

from __future__ import annotations

from aiki_actors import engine as e
from aiki_actors.kernel import Reply
from aiki_sdk.protocol import RunStatus

from ._services import Entries, Show, View, ViewEnd


class Batch:
    """What one turn of the mailbox has decided and not yet made durable.

    A plain class with slots: one is made per turn, on the hottest path there is.

    Attributes:
        entries: all of them, in order; `statuses` has the run's status after each.
        foreign: those that the worker which executes the run does not learn as a reply.
        answers: who is to be answered, with which entries.
        views: who asked what the run is.
        passed_on: notices for the run that goes on in this one's place.
        asked: notices that these entries carry out.
        owed: notices that these entries mean for other runs.
        claims: claims made; each has taken a slot.
        shown: what is shown to whoever watches, after the entries before it are durable.
        freed: claims ended: the worker, and whether it keeps the run warm.
        held_to: seq of the entry that ended the claim with which the turn began.
        elapsed: a timer fired, so that none is set any more.
        plain: nothing in the run's row or its timers can have changed.
        warm: whether the worker of the last claim has the run in memory.
        pulled: whether the worker of the last claim came by a message.
        supersedes: the ended run that gives its reference id up to this one.

    """

    __slots__ = (
        "answers",
        "asked",
        "claims",
        "elapsed",
        "entries",
        "foreign",
        "freed",
        "held_to",
        "owed",
        "passed_on",
        "plain",
        "pulled",
        "shown",
        "statuses",
        "supersedes",
        "views",
        "warm",
    )

    def __init__(self) -> None:
        self.entries: list[e.Entry] = []
        self.statuses: list[RunStatus] = []
        self.foreign: list[e.Entry] = []
        self.answers: list[tuple[Reply[Entries], Entries]] = []
        self.views: list[View | ViewEnd] = []
        self.asked: list[e.Notice] = []
        self.passed_on: list[e.Notice] = []
        self.owed: tuple[e.Notice, ...] = ()
        self.shown: list[Show] = []
        self.claims: list[e.RunClaimed] = []
        self.freed: list[tuple[str, bool]] = []
        self.held_to: int | None = None
        self.elapsed = False
        self.plain = True
        self.pulled = False
        self.warm = False
        self.supersedes: str | None = None
