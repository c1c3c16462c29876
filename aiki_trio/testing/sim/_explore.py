"""`explore`: many seeds, one after another; now and then one of them twice.

A seed that is run twice must give the same trace both times. If it does not, something in the
simulated world asked the real one, and that is a failure of its own: what it finds cannot be shown
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, field

from aiki_sdk import AnyWorkflow, SystemClock

from ._options import SimOptions
from ._simulation import SimReport, SimulationFailed, Workload, replay_line, simulate

TWICE_EVERY: Final = 100


@define(eq=False)
class Exploration:
    """What came of many seeds.

    Attributes:
        simulations: how many simulations were run.
        runs: how many runs there were in them.
        entries: how many entries their journals have.
        failures: what failed, in order.
        seconds: how long it took, by the machine's clock.

    """

    simulations: int = 0
    runs: int = 0
    entries: int = 0
    seconds: float = 0.0
    failures: list[SimulationFailed] = field(factory=lambda: list[SimulationFailed](), init=False)

    def count(self, report: SimReport) -> None:
        """Add a simulation that broke no promise."""
        self.simulations += 1
        self.runs += report.runs
        self.entries += report.entries

    def __str__(self) -> str:
        rate = self.simulations / self.seconds if self.seconds else 0.0
        return (
            f"{self.simulations} simulations, {self.runs} runs, {self.entries} journal entries in "
            f"{self.seconds:.1f} s ({rate:.1f} a second), {len(self.failures)} failed"
        )


def explore(
    seeds: Iterable[int | str],
    workload: Workload | None = None,
    *,
    workflows: Iterable[AnyWorkflow] = (),
    options: SimOptions | Callable[[int | str], SimOptions] | None = None,
    twice_every: int = TWICE_EVERY,
    on_failure: Callable[[SimulationFailed], None] | None = None,
    minutes: float | None = None,
) -> Exploration:
    """Simulate many seeds; a plain function, for plain tests.

    Args:
        seeds: which.
        workload: what happens in each; default: random programs.
        workflows: what the workload starts.
        options: what the simulations are like; default: drawn from each seed.
        twice_every: each so many-th seed is run twice and compared; 0: none.
        on_failure: called with each failure, and the next seed follows; None: it is raised.
        minutes: after so long no further seed is begun; None: all of them.

    Raises:
        SimulationFailed: by the first seed that fails, if there is no `on_failure`.

    """
    found = Exploration()
    given = tuple(workflows)
    clock = SystemClock()
    begun = clock.monotonic()
    for number, seed in enumerate(seeds):
        if minutes is not None and clock.monotonic() - begun > minutes * 60:
            break
        drawn = options(seed) if callable(options) else options
        try:
            report = simulate(seed, workload, workflows=given, options=drawn)
            found.count(report)
            if twice_every and number % twice_every == 0:
                again = simulate(seed, workload, workflows=given, options=drawn)
                _compare(report, again, replay_line(seed, workload, given, drawn))
        except SimulationFailed as failure:
            if on_failure is None:
                raise
            found.simulations += 1
            found.failures.append(failure)
            on_failure(failure)
        finally:
            found.seconds = clock.monotonic() - begun
    return found


def _compare(first: SimReport, second: SimReport, replay: str) -> None:
    if first.digest != second.digest:
        what = (
            f"two simulations of seed {first.seed} differ: something in them asks the machine for "
            "time, chance, a thread or a socket"
        )
        raise SimulationFailed(first.seed, first.options, [("determinism", what)], (), replay)
