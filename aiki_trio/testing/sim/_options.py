"""What a simulation is like: its size, its faults, and how strange its scheduler is.

By default all of it is drawn from the seed ("swarm testing"): one seed has no partitions but slow
storage and four workers, the next has one worker that is killed every few seconds. Faults that
would hide one another are thereby met alone too.
"""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Final

from attrs import fields, frozen


class Fault(StrEnum):
    """What can go wrong in a simulation."""

    WORKER_CRASH = "worker-crash"
    WORKER_STOP = "worker-stop"
    SERVER_CRASH = "server-crash"
    CRASH_AT_CALL = "crash-at-call"
    LOST_COMMITS = "lost-commits"
    PARTITION = "partition"
    ONE_WAY = "one-way-partition"
    LATE_DELIVERY = "late-delivery"
    STORAGE_ERRORS = "storage-errors"
    UNKNOWN_OUTCOME = "unknown-outcome"
    SLOW_STORAGE = "slow-storage"
    CLOCK_JUMP = "clock-jump"
    SERVER_STOP = "server-stop"
    POISON = "poison"
    QUEUE_LOSS = "queue-loss"
    QUEUE_DISORDER = "queue-disorder"
    QUEUE_DOWN = "queue-down"


ALL_FAULTS: Final = tuple(Fault)

LATER: Final[tuple[Fault, ...]] = (
    Fault.SERVER_STOP,
    Fault.POISON,
    Fault.QUEUE_LOSS,
    Fault.QUEUE_DISORDER,
    Fault.QUEUE_DOWN,
)
"""Drawn apart from the others, which were there before: a seed goes on meaning what it meant."""

DRAWING: Final = 2
"""How options are drawn from a seed: 1 knows neither what is in `LATER` nor a queue."""


@frozen(kw_only=True)
class SimOptions:
    """How one simulation is set up. Times are virtual seconds.

    Attributes:
        workers: how many workers there are.
        runs: about how many runs the random workload starts.
        safety_s: how long faults happen.
        liveness_s: how long after the last fault every run has to end.
        fault_gap_s: mean time between two faults.
        faults: which faults happen.
        deferral: how often the scheduler lets a ready task miss a pass, from 0 to below 1.
        latency_s: the longest delay of one call of a port, without a fault.
        slots: runs that a worker executes at once.
        warm: parked runs that a worker keeps in memory.
        claims_lost_max: claims lost in a row without progress before a run stalls.
        sweep_s: seconds between two sweeps of the keeper.
        grace_s: how long a session outlives its connection.
        skew_s: how far the clock of a server may be from the time of the simulation.
        rollback_max: commits that a crash of the server may lose, if `LOST_COMMITS` is on.
        queue: whether a Redis carries ready runs to the workers; needs the extra `redis`.

    """

    workers: int = 2
    runs: int = 12
    safety_s: float = 40.0
    liveness_s: float = 1_200.0
    fault_gap_s: float = 4.0
    faults: tuple[Fault, ...] = ()
    deferral: float = 0.0
    latency_s: float = 0.01
    slots: int = 4
    warm: int = 10
    claims_lost_max: int = 5
    sweep_s: float = 2.0
    grace_s: float = 5.0
    skew_s: float = 0.0
    rollback_max: int = 3
    queue: bool = False

    def as_code(self) -> str:
        """Return the call that makes equal options; what is as by default is left out."""
        usual = SimOptions()
        given = {each.name: getattr(self, each.name) for each in fields(SimOptions)}
        code = {name: repr(value) for name, value in given.items() if value != getattr(usual, name)}
        if self.faults:
            named = "".join(f"Fault.{fault.name}, " for fault in self.faults)
            code["faults"] = f"({named.rstrip()})"
        return f"SimOptions({', '.join(f'{name}={text}' for name, text in code.items())})"

    @classmethod
    def drawn(cls, seed: int | str, *, own: bool = False, drawing: int = DRAWING) -> SimOptions:
        """Draw options from a seed.

        Args:
            seed: what they are drawn from.
            own: for a workload of one's own, which meets no database that loses what was
                acknowledged, and no Redis.
            drawing: 1 draws as once; for seeds that were kept then.

        """
        rng = random.Random(f"{seed}/options")  # noqa: S311  (determinism is the point)
        share = rng.choice([0.0, 0.15, 0.3, 0.3, 0.6, 1.0])
        later = random.Random(f"{seed}/later options")  # noqa: S311  (as above)
        first: list[Fault] = [fault for fault in ALL_FAULTS if fault not in LATER]
        faults = tuple(fault for fault in first if rng.random() < share)
        if drawing > 1:
            faults += tuple(fault for fault in LATER if later.random() < share)
        if own:
            faults = tuple(fault for fault in faults if fault is not Fault.LOST_COMMITS)
        return cls(
            workers=rng.choice([1, 2, 2, 3, 4]),
            runs=rng.randint(5, 30),
            safety_s=rng.choice([15.0, 30.0, 60.0]),
            fault_gap_s=rng.choice([0.5, 2.0, 5.0, 15.0]),
            faults=faults,
            deferral=rng.choice([0.0, 0.0, 0.0, 0.3, 0.6]),
            latency_s=rng.choice([0.0, 0.001, 0.01, 0.1]),
            slots=rng.choice([1, 2, 4, 10]),
            warm=rng.choice([0, 1, 10]),
            claims_lost_max=rng.choice([2, 5, 50]),
            sweep_s=rng.choice([0.5, 2.0, 5.0]),
            grace_s=rng.choice([0.5, 5.0, 15.0]),
            skew_s=rng.choice([0.0, 0.0, 0.5, 300.0]),
            rollback_max=rng.randint(1, 5),
            queue=drawing > 1 and not own and later.random() < 0.5,
        )
