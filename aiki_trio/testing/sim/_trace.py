"""The trace of a simulation: what happened, when, in order; and a digest of all of it.

Two simulations with one seed have one digest. If they have not, something in the simulated world
asked the real one, and no failure could be replayed.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import Final

import trio
from attrs import define, field

KEPT: Final = 200
"""Lines that a failure shows."""


@define(eq=False)
class Trace:
    """Lines of text with their virtual times.

    Attributes:
        lines: the last ones.
        count: how many there were.

    """

    kept: int = KEPT
    lines: deque[str] = field(init=False)
    count: int = field(default=0, init=False)
    _hash: blake2b = field(factory=lambda: blake2b(digest_size=16), init=False)

    def __attrs_post_init__(self) -> None:
        """Begin."""
        self.lines = deque(maxlen=self.kept)

    def note(self, where: str, what: str) -> None:
        """Add a line; call it inside Trio."""
        line = f"{trio.current_time():12.6f} {where:<9} {what}"
        self.count += 1
        self._hash.update(line.encode())
        self.lines.append(line)

    @property
    def digest(self) -> str:
        """A number that two equal traces have in common, as text."""
        return self._hash.hexdigest()
