"""Forking: what of a run's history a new run begins with.

A fork keeps what was *recorded* up to a point: results of tasks, ended sleeps, events, children
that ended, local values. What was going on then (open waits, failed attempts, live children,
the claim) belongs to the old run and begins afresh in the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import evolve

from aiki_sdk import InvalidRequest, JsonValue

from . import _entries as e  # pyright: ignore[reportPrivateUsage]
from ._entries import Body, Call, Entry

FORK_WORKER: Final = "fork"
"""Stands for the worker in the claim under which a copied history is written."""

_COPIED: Final = (
    e.TaskSucceeded,
    e.EventAccepted,
    e.EventConsumed,
    e.ValueRecorded,
    e.ValuePublished,
    e.EventSent,
    e.QuestionAnswered,
    e.TimeoutReached,
)


def fork_history(
    entries: Iterable[Entry], at: int, overrides: Mapping[int, JsonValue], claim_id: str
) -> tuple[Body, ...]:
    """Return the bodies that follow `RunCreated` in a fork of `entries` up to seq `at`.

    Args:
        entries: the journal of the run that is forked.
        at: the last seq that counts.
        overrides: other results, by the seq of the `TaskSucceeded` that they replace.
        claim_id: of the claim under which the history is written.

    Raises:
        InvalidRequest: an override names no task result up to `at`.

    """
    kept = [entry for entry in entries if entry.seq <= at]
    _check(kept, overrides)
    ended = {b.child_id for entry in kept if isinstance(b := entry.body, e.ChildEnded)}
    slept = {b.call for entry in kept if isinstance(b := entry.body, e.SleepEnded)}
    copied: list[Body] = [e.RunClaimed(FORK_WORKER, 1, claim_id)]
    seqs: dict[int, int] = {}
    for entry in kept:
        body = _copy(entry, overrides, seqs, ended, slept)
        if body is not None:
            copied.append(body)
            seqs[entry.seq] = len(copied) + 1
    copied.append(e.ClaimReleased("fork"))
    return tuple(copied)


def _check(kept: list[Entry], overrides: Mapping[int, JsonValue]) -> None:
    results = {entry.seq for entry in kept if isinstance(entry.body, e.TaskSucceeded)}
    wrong = sorted(set(overrides) - results)
    if wrong:
        message = (
            f"overrides={wrong} is not valid: entry {wrong[0]} is no task result up to the fork; "
            f"the task results are {sorted(results)}"
        )
        raise InvalidRequest(message)


def _copy(
    entry: Entry,
    overrides: Mapping[int, JsonValue],
    seqs: Mapping[int, int],
    ended: set[str],
    slept: set[Call],
) -> Body | None:
    """Return the entry's body as the fork has it; None if it is not kept."""
    body = entry.body
    if isinstance(body, e.TaskSucceeded) and entry.seq in overrides:
        return evolve(body, output=overrides[entry.seq])
    if isinstance(body, e.EventConsumed):
        return evolve(body, item=seqs[body.item])
    if isinstance(body, e.QuestionAnswered):
        return evolve(body, item=seqs[body.item])
    if isinstance(body, _COPIED):
        return body
    if isinstance(body, e.ChildStarted | e.ChildEnded) and body.child_id in ended:
        return body
    if isinstance(body, e.SleepStarted | e.SleepEnded) and body.call in slept:
        return body
    return None
