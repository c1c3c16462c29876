"""The simulator finds bugs: each that is planted, within 2,000 seeds, most within a few.

This is the proof that a simulation which reports nothing has looked.
"""

from __future__ import annotations

import pytest

from aiki_trio.testing import SimulationFailed, simulate
from tests.sim.planted import PLANTED, Planting, options_for

SEEDS_MAX = 2_000


def seeds_until_found(plant: Planting) -> tuple[int, SimulationFailed | None]:
    """Simulate with the bug until a promise is broken; return how many seeds that took."""
    for seed in range(SEEDS_MAX):
        try:
            with plant():
                simulate(seed, options=options_for(seed, PLANTED[plant]))
        except SimulationFailed as failure:
            return seed + 1, failure
    return SEEDS_MAX, None


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found_and_its_seed_shows_it_again(plant: Planting) -> None:
    """Slow: it searches seed after seed."""
    seeds, failure = seeds_until_found(plant)
    assert failure is not None, f"{plant.__name__} was not found within {seeds} seeds"
    assert failure.promises
    with plant(), pytest.raises(SimulationFailed) as again:
        simulate(failure.seed, options=failure.options)
    assert again.value.problems == failure.problems
