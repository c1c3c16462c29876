"""The engine's limits: named, with their reasons; each is a setting with a documented error."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from ._entries import Micros

SECOND: Final = 1_000_000
"""Microseconds in a second."""


@frozen
class EngineLimits:
    """Bounds that `decide` holds; `LimitExceeded` (or the entry named here) tells of a breach.

    Attributes:
        claims_lost_max: claims lost in a row without progress before a run stalls. Five: a
            worker that is killed by the run itself (out of memory) must not go on for ever.
        entries_max: journal entries of one run, then it fails with `LimitExceeded`. 50,000 is
            what Temporal allows a history, and folds in about a second.
        children_max: live children of one run.
        depth_max: generations of children.
        wait_max: longest sleep or timeout.
        local_retry_max: a retry delay up to this passes in the worker; a longer one is a wait.
        unread_max: events a run has accepted and not consumed.

    """

    claims_lost_max: int = 5
    entries_max: int = 50_000
    children_max: int = 10_000
    depth_max: int = 50
    wait_max: Micros = Micros(100 * 366 * 24 * 3600 * SECOND)
    local_retry_max: Micros = Micros(100_000)
    unread_max: int = 10_000


DEFAULT_LIMITS: Final = EngineLimits()
