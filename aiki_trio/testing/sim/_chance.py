"""Named sources of chance: each part of a simulation draws from its own.

So that a change in one part (one message more, one fault less) does not shift what every other part
draws: seeds stay comparable while a failure is being narrowed down.
"""

from __future__ import annotations

import random

from attrs import define, field


@define(eq=False)
class Chance:
    """Makes child generators of a seed."""

    seed: str
    _made: dict[str, random.Random] = field(factory=lambda: dict[str, random.Random](), init=False)

    def of(self, name: str) -> random.Random:
        """Return the generator with this name, always the same one."""
        made = self._made.get(name)
        if made is None:
            # Text seeds do not depend on Python's hash seed.
            made = self._made[name] = random.Random(f"{self.seed}/{name}")  # noqa: S311
        return made


def latency(rng: random.Random, longest_s: float) -> float:
    """Draw a delay: mostly none, seldom the longest."""
    if not longest_s or rng.random() < 0.5:
        return 0.0
    return longest_s * rng.random() ** 3
