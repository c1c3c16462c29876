"""What must hold when a simulation is over, of the journals, the clients and the effects.

What must hold at every single step is checked as it happens: by the oracles (`_oracle.py`) with
every entry, by the links and clients with everything that is acknowledged, dispatched or pushed,
and by the effects with every attempt that begins. Here is what only the end can tell.

A failover that lost commits takes back what was acknowledged in them; promises about a run that it
rewound hold for what remains of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from math import inf
from typing import Final

from aiki_actors import engine as e
from aiki_actors.storage import RunFilter
from aiki_sdk.protocol import ControlCommand, OnConflict

from ._clients import ClientLog, Controlled
from ._disk import Disk
from ._effects import Effects
from ._oracle import RunOracle

ROWS_MAX: Final = 500
CASCADE_S: Final = 120.0
"""A cancellation has reached a child by then, whatever faults there were."""

Complaint = tuple[str, str]
"""A promise and how it was broken."""


async def complaints(disk: Disk, log: ClientLog, effects: Effects) -> list[Complaint]:
    """Return what is wrong at the end."""
    found = [
        *_starts(disk, log),
        *_ends(disk),
        *_references(disk),
        *_events(disk, log),
        *_controls(disk, log),
        *_children(disk),
        *_attempts(disk, effects),
    ]
    found += [item async for item in _leftovers(disk)]
    found += [item async for item in _rows(disk)]
    return found


def _starts(disk: Disk, log: ClientLog) -> Iterator[Complaint]:
    """P1, P8: an acknowledged start is there, with the input that was acknowledged."""
    for started in log.started:
        oracle = disk.oracles.get(started.run_id)
        if oracle is None:
            if disk.rewound.get(started.run_id) != 1:
                yield "P1", f"run {started.run_id} was acknowledged, and does not exist"
            continue
        created = oracle.created
        assert created is not None, "the first entry of every journal is its creation"
        same = created.input_hash == started.request.input_hash
        may_differ = started.request.on_conflict is OnConflict.RETURN_EXISTING
        if not same and not (may_differ and not started.created):
            yield "P1", f"run {started.run_id} has another input than was acknowledged"


def _ends(disk: Disk) -> Iterator[Complaint]:
    """P1: every run has ended."""
    for run_id, oracle in disk.oracles.items():
        if not oracle.phase.terminal:
            waits = ", ".join(f"{wait.kind} {wait.name}" for wait in oracle.waits.values())
            what = f"{oracle.phase} since entry {oracle.seq}, waits: {waits or 'none'}"
            yield "P1", f"run {run_id} has not ended: {what}"


def _references(disk: Disk) -> Iterator[Complaint]:
    """P8: one reference id names one run at a time."""
    named: dict[tuple[str, str], list[str]] = {}
    for run_id in sorted(disk.born, key=disk.born.__getitem__):
        created = disk.oracles[run_id].created
        if created is not None and created.reference_id is not None:
            named.setdefault((created.workflow, created.reference_id), []).append(run_id)
    for (workflow, reference), run_ids in named.items():
        for earlier, later in pairwise(run_ids):
            if disk.ended.get(earlier, 1 << 62) > disk.born[later] and earlier not in disk.rewound:
                what = f"reference {reference!r} of {workflow!r}"
                yield "P8", f"{what} named run {later} while run {earlier} went on"


def _events(disk: Disk, log: ClientLog) -> Iterator[Complaint]:
    """P5: an acknowledged event is in the journal."""
    for sent in log.sent:
        oracle, seq = disk.oracles.get(sent.run_id), sent.receipt.seq
        if sent.run_id in disk.rewound or oracle is None:
            continue
        if seq is not None and seq not in oracle.items:
            yield "P5", f"run {sent.run_id}: acknowledged event {seq} is not there"
        elif seq is None and sent.request.reference_id is not None:
            mark = "?" if sent.request.question else ""
            if (mark + sent.request.event, sent.request.reference_id) not in oracle.references:
                yield "P5", f"run {sent.run_id}: a duplicate was acknowledged of no event"


def _controls(disk: Disk, log: ClientLog) -> Iterator[Complaint]:
    """P10: an acknowledged command stands in the journal."""
    for done in log.controlled:
        oracle = disk.oracles.get(done.run_id)
        if oracle is None or done.run_id in disk.rewound:
            continue
        if not _took_effect(oracle, done):
            yield "P10", f"run {done.run_id}: {done.request.command} was acknowledged, and lost"


def _took_effect(oracle: RunOracle, done: Controlled) -> bool:
    match done.request.command:
        case ControlCommand.CANCEL:
            return oracle.cancelled or isinstance(oracle.end, e.RunCancelled)
        case ControlCommand.TERMINATE:
            return isinstance(oracle.end, e.RunCancelled)
        case ControlCommand.PAUSE:
            return oracle.was_paused
        case ControlCommand.RETRY:
            return oracle.retries > 0
        case _:
            return True


def _children(disk: Disk) -> Iterator[Complaint]:
    """P7: children exist, parents hear of them, a cancellation reaches them."""
    for run_id, oracle in disk.oracles.items():
        if run_id in disk.rewound:
            continue
        for child_id, ended in oracle.children.items():
            child = disk.oracles.get(child_id)
            if child_id in disk.rewound:
                continue
            if isinstance(oracle.end, e.RunFailed) and ended is None:
                yield "P7", f"run {run_id} has failed, and does not know how {child_id} ended"
            if (
                child is None
                and ended is None
                and oracle.child_calls[child_id].on_conflict is (OnConflict.ERROR)
            ):
                yield "P7", f"run {run_id}: its child {child_id} was never created"
            if child is not None and oracle.cancelled and ended is None and not child.cancelled:
                # Its own end was on its way when the cancellation came, or it was never reached.
                late_s = disk.ended_s.get(child_id, inf) - disk.cancelled_s[run_id]
                if late_s > CASCADE_S:
                    what = f"child {child_id} went on for {late_s:.0f} s"
                    yield "P7", f"run {run_id} was cancelled, and {what}"


def _attempts(disk: Disk, effects: Effects) -> Iterator[Complaint]:
    """P2: an attempt begins again only because a claim was lost or given back, or a run retried."""
    begun = Counter(
        (made.run_id, made.idempotency_key, made.attempt, made.task) for made in effects.attempts
    )
    for (run_id, _key, attempt, task), times in begun.items():
        oracle = disk.oracles.get(run_id)
        if oracle is None or run_id in disk.rewound:
            continue
        once = task in effects.once
        allowed = 1 + (oracle.retries if once else oracle.starts_over)
        if times > allowed:
            yield (
                "P2",
                f"run {run_id}: attempt {attempt} of {task!r} began {times} times, not {allowed}",
            )


async def _leftovers(disk: Disk) -> AsyncIterator[Complaint]:
    """P7: nothing is owed, claimed or ready when everything has ended."""
    storage = disk.storage
    for notice in await storage.notices(limit=ROWS_MAX):
        kind = type(notice.command).__name__
        yield "P7", f"{kind} of run {notice.source_id} to {notice.target_id} was never delivered"
    for claimed in await storage.claimed(limit=ROWS_MAX):
        yield "P4", f"run {claimed.run_id} is claimed by {claimed.worker_id} according to its row"
    for ready in await storage.ready(limit=ROWS_MAX):
        yield "P4", f"run {ready.run_id} is ready according to its row"


async def _rows(disk: Disk) -> AsyncIterator[Complaint]:
    """P4: every row is what its journal projects to."""
    cursor: str | None = None
    while True:
        page = await disk.storage.runs(RunFilter("default"), limit=ROWS_MAX, cursor=cursor)
        for row in page.runs:
            state = e.fold(row.run_id, disk.journals.get(row.run_id, []))
            if e.project(state) != row:
                yield "P4", f"the row of run {row.run_id} is not what its journal says"
        cursor = page.cursor
        if cursor is None:
            return
