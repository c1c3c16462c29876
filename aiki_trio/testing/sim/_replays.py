"""Replays of what was simulated: the same code on the same journal ends the same way again.

In another order of its branches, for the scheduler follows another seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

from aiki_actors import engine as e
from aiki_sdk import AikiError, AnyWorkflow
from aiki_trio.testing._journal import Journal
from aiki_trio.testing._replay import replay

from ._disk import Disk
from ._scheduler import deterministic

REPLAYED_MAX: Final = 3
"""Runs of one simulation that are replayed."""


def replay_problems(
    disk: Disk, workflows: Sequence[AnyWorkflow], rng: random.Random, seed: str
) -> Iterator[tuple[str, str]]:
    """Replay some runs that have completed, and tell which of them end otherwise."""
    known = {(workflow.name, workflow.version): workflow for workflow in workflows}
    completed = [
        run_id
        for run_id, oracle in disk.oracles.items()
        # One that completed while its cancellation came is cancelled when it is replayed.
        if isinstance(oracle.end, e.RunCompleted)
        and not oracle.cancelled
        and run_id not in disk.rewound
    ]
    for run_id in rng.sample(completed, min(REPLAYED_MAX, len(completed))):
        created = disk.oracles[run_id].created
        workflow = None
        if created is not None:
            workflow = known.get((created.workflow, created.version))
        if workflow is None:
            continue
        entries = tuple(disk.journals[run_id])
        journal = Journal(run_id, workflow.name, workflow.version, entries)
        try:
            with deterministic(f"{seed}/replay/{run_id}", 0.3):
                report = replay(workflow, journal)
        except AikiError as error:
            yield "P8", f"run {run_id} cannot be replayed: {type(error).__name__}: {error}"
            continue
        if report.outcome is None or report.outcome != report.recorded:
            yield "P8", f"run {run_id} ended with {report.recorded}, replayed: {report.outcome}"
