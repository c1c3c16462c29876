"""The registry of fault points: one line for each, with the kill point that it stands for.

To add a point: one line here, one call `fault_point("name")` at the place, one run of
`python docs/_generate_fault_points.py`. Tests check that the three agree.

Codes are those of the kill tests' plan: W for what a worker does, S for what a server does.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen
class FaultPoint:
    """A place in the code at which a process may be told to die.

    Attributes:
        name: `<part>.<moment>`, as it is given in `AIKI_FAULT`.
        codes: the kill points that it stands for.
        meaning: what has happened when the code comes here, and what has not.
        embedded: whether an embedded runtime on SQLite comes here; else only a server and workers
            in processes of their own. The kill tests strike every point in the one or the other,
            and take it for a failure if their load does not reach it.

    """

    name: str
    codes: str
    meaning: str
    embedded: bool = True


_P = FaultPoint

FAULT_POINTS: Final[tuple[FaultPoint, ...]] = (
    # --- the worker's side
    _P("queue.offered", "W1", "a slot is taken for a run that becomes ready; it is not claimed"),
    _P("queue.popped", "W1", "a run was taken from the queue for a worker; it is not claimed"),
    _P(
        "message.delivered",
        "W1",
        "a worker was given a run's message by Redis; it has not asked for the claim",
        embedded=False,
    ),
    _P(
        "message.held",
        "W2",
        "a worker knows that it has the claim of a message's run; the message is not noted",
        embedded=False,
    ),
    _P("claim.committed", "W2", "a claim is durable; its worker was not told"),
    _P("run.assigned", "W3", "a worker was told of its claim; the workflow's code has not begun"),
    _P("run.replayed", "W7", "a recorded result is about to be given to the code"),
    _P("task.begun", "W4", "an attempt has its place; the task's function has not begun"),
    _P("task.done", "W5", "the task's function has ended; its outcome was not reported"),
    _P("worker.replied", "W6", "what a worker said is durable; it has not taken the answer in"),
    _P("run.parked", "W8", "a run's parking is durable; its worker has not taken that in"),
    _P("run.ended", "W9", "a run's outcome is durable; its executor has not stopped"),
    _P(
        "message.done",
        "W9",
        "runs ended or parked here; their messages are not acknowledged",
        embedded=False,
    ),
    _P(
        "lease.renewed",
        "W10",
        "a worker was told that its lease goes on; nothing else of that message is done",
        embedded=False,
    ),
    _P("worker.stopping", "W11", "a worker takes no more runs; those it has were not given back"),
    _P("run.released", "W11", "a stopping worker is about to give a run's claim back"),
    # --- the server's side
    _P("start.received", "S1", "a start was checked; nothing of it is written"),
    _P("commit.begun", "S1", "a batch is written; it is not committed"),
    _P("commit.done", "S2 S3", "a batch is committed; nobody was told"),
    _P("run.committed", "S3 S7 S8", "a run's entries are durable; nobody was answered or woken"),
    _P("message.due", "S3", "a ready run is about to be published in Redis", embedded=False),
    _P(
        "message.published",
        "S4",
        "a ready run's message stands in Redis; the server has not noted that",
        embedded=False,
    ),
    _P("start.committed", "S2", "a start is durable; the client has no answer"),
    _P("event.committed", "S2 S7", "an event is durable; the sender has no answer"),
    _P("control.committed", "S2 S9", "a cancellation or the like is durable; no answer was given"),
    _P("notice.owed", "S3 S8 S9", "what a run owes another is durable; the other was not told"),
    _P("notice.told", "S4 S9", "another run was told what it is owed; that is not settled"),
    _P(
        "session.heard",
        "W10",
        "a worker's session was prolonged by a message; nothing that it says is done",
        embedded=False,
    ),
    _P(
        "session.answering",
        "W6 W9",
        "what a worker said is durable; the answer does not stand in its session yet",
        embedded=False,
    ),
    _P("run.freed", "S5", "a claim has ended; the run that is ready again stands in no queue"),
    _P("timer.taken", "S6", "due runs were taken out of the timers; none was woken"),
    _P("recovery.claims", "S5", "claims of lost workers were found; none was taken back"),
    _P("recovery.notices", "S4", "notices that are still owed were found; none was repeated"),
    _P("retention.deleting", "S1", "ended runs are about to be deleted"),
    _P("schema.migrating", "S11", "a step of the schema is written; it is not committed"),
)
"""Every fault point there is."""
