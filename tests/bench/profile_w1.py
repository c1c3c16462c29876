"""Where the processor's time of one task result goes: `python -m tests.bench.profile_w1`.

Runs W1 again and again and looks at the loop's thread each millisecond of processor time
(`ITIMER_PROF`), which costs a few per cent; then counts steps, passes and transactions without
looking. Prints the table that `docs/explanation/performance.md` shows. What the writing thread
computes is the difference between the process's time and the loop's.

A sample belongs to the module of the innermost Python function; C code belongs to its caller.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, cast

import trio

from aiki_actors.server import StorageActor
from tests.bench._measuring import limited
from tests.bench._places import Place, run_chain, warm_runtime

RUNS: Final = 300
STEPS: Final = 10
CAP: Final = 50
ROUNDS: Final = 8
INTERVAL_S: Final = 0.001
RESULTS: Final = RUNS * STEPS

_SCOPES: Final = ("CancelScope", "CancelStatus", "_activate_cancel_status", "contextlib")
_LAYERS: Final = (
    ("/aiki_actors/kernel/", "kernel: mailboxes, replies, actors' lives"),
    ("/aiki_actors/engine/", "engine: decide and evolve"),
    ("/aiki_actors/server/", "server: run actor, hub, dispatcher"),
    ("/aiki_actors/worker/", "worker: executor, attempts, replica"),
    ("/aiki_actors/storage/", "storage: entries as JSON, handing over"),
    ("/aiki_sdk/", "SDK: payloads, addresses, client"),
    ("/trio/", "Trio: scheduler"),
    ("/outcome/", "Trio: scheduler"),
)
_WAITING: Final = "(waiting for the disk)"
_SCOPE_LAYER: Final = "Trio: cancel scopes"


class Steps(trio.abc.Instrument):
    """Counts task steps and scheduler passes."""

    def __init__(self) -> None:
        self.steps = 0
        self.passes = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step."""
        self.steps += 1

    def after_io_wait(self, timeout: float) -> None:
        """Count a pass."""
        self.passes += 1


def layer_of(frame: FrameType) -> str:
    """Say which part of the system a sample belongs to."""
    code = frame.f_code
    path, name = code.co_filename, code.co_qualname
    if name.endswith("EpollIOManager.get_events"):
        return _WAITING
    if any(part in name or part in path for part in _SCOPES):
        return _SCOPE_LAYER
    for part, layer in _LAYERS:
        if part in path:
            return layer
    # Generated methods of attrs and the like: whoever called them.
    return "other" if frame.f_back is None else layer_of(frame.f_back)


async def _measure(folder: Path) -> tuple[Counter[str], float, float, Steps, float]:
    samples: Counter[str] = Counter()

    def sample(_signal: int, frame: FrameType | None) -> None:
        if frame is not None:
            samples[layer_of(frame)] += 1

    async with warm_runtime(Place(folder), []) as runtime:

        async def one(number: int) -> None:
            await run_chain(runtime.client, number, STEPS)

        node = runtime.system.root.child("storage")
        assert node is not None, "the root supervisor starts the storage actor"
        storage = cast("StorageActor", node.cell.actor)
        await limited(RUNS, CAP, one)
        before_s, before_loop_s = time.process_time(), time.thread_time()
        for _ in range(ROUNDS):
            await limited(RUNS, CAP, one)
        spent_s = (time.process_time() - before_s) / ROUNDS
        loop_s = (time.thread_time() - before_loop_s) / ROUNDS
        steps, commits = Steps(), storage.commits
        trio.lowlevel.add_instrument(steps)
        await limited(RUNS, CAP, one)
        trio.lowlevel.remove_instrument(steps)
        per_commit = RESULTS / (storage.commits - commits)
        signal.signal(signal.SIGPROF, sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
        for _ in range(ROUNDS):
            await limited(RUNS, CAP, one)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return samples, spent_s, loop_s, steps, per_commit


def table(samples: Counter[str], spent_s: float, loop_s: float) -> list[str]:
    """Return the rows of the profile, the most expensive first."""
    computing = Counter({layer: n for layer, n in samples.items() if layer != _WAITING})
    rows = [(layer, count / computing.total() * loop_s) for layer, count in computing.most_common()]
    rows.append(("writing thread: SQL, commit", spent_s - loop_s))
    rows.sort(key=lambda row: -row[1])
    lines = ["| where | µs per task result | share |", "|---|---|---|"]
    for layer, seconds in rows:
        micros = seconds / RESULTS * 1e6
        lines.append(f"| {layer} | {micros:.1f} | {seconds / spent_s:.0%} |")
    lines.append(f"| **together** | **{spent_s / RESULTS * 1e6:.0f}** | |")
    return lines


def main() -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory(prefix="profile-w1-") as folder:
        measured = trio.run(partial(_measure, Path(folder)))
    samples, spent_s, loop_s, steps, per_commit = measured
    print("\n".join(table(samples, spent_s, loop_s)))
    print(
        f"\n{steps.steps / RESULTS:.2f} task steps and {steps.passes / RESULTS:.2f} scheduler "
        f"passes per task result; {per_commit:.1f} task results per transaction; "
        f"{samples.total()} samples; Python {sys.version.split()[0]}, Trio {trio.__version__}"
    )


if __name__ == "__main__":
    main()
