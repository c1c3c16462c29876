"""When a claim has ended: what both ends of a session look for in the entries that pass."""

from __future__ import annotations

from typing import Final

from aiki_actors.engine import ROWS, Body, Phase

CLAIM_ENDS: Final[frozenset[type[Body]]] = frozenset(
    row.entry
    for row in ROWS
    if Phase.RUNNING in row.sources and row.target not in {None, Phase.RUNNING}
)
"""Kinds of entries after which nobody holds the run's claim."""
