"""Seeded scheduling: the only place that touches names which are private to Trio.

Trio runs every task that is ready in one pass, in an order of its own. Its test plugin for
Hypothesis makes that order a function of two module variables of `trio._core._run`: a flag, and a
`random.Random`. Setting both makes a whole run repeat itself step by step, for as long as nothing
in it asks the real world (sockets, threads, the machine's clock).

A shuffle alone never lets a task fall far behind. `StarvingRandom` also puts some of the ready
tasks back into the queue, so that they miss this pass, and perhaps the next ones.

Invariant: on leaving `deterministic` Trio is as it was. `shape_problem` says what has changed in a
Trio that this was not written for; a test asks it.
"""

from __future__ import annotations

import inspect
import random
from collections import deque
from collections.abc import Generator, MutableSequence
from contextlib import contextmanager
from typing import Any, Final, cast

import trio
from trio._core import _run as scheduler  # pyright: ignore[reportPrivateUsage]

FLAG: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
SOURCE: Final = "_r"
"""The two variables of `trio._core._run`."""


class StarvingRandom(random.Random):
    """Decides the order of ready tasks; some of them it lets wait for another pass."""

    def __init__(self, seed: str, deferral: float) -> None:
        """Take the seed as text, and the chance of a ready task to be left out of a pass."""
        super().__init__(seed)
        self.deferral = deferral

    def shuffle(self, x: MutableSequence[Any]) -> None:
        """Shuffle the batch of ready tasks, and put some of it back."""
        super().shuffle(x)
        if not self.deferral or len(x) < 2:
            return
        kept: list[object] = []
        put_back: list[object] = []
        for task in x:
            (put_back if self.random() < self.deferral else kept).append(task)
        if not kept:
            kept.append(put_back.pop())
        x[:] = kept
        _run_queue().extend(put_back)


def _run_queue() -> deque[object]:
    return cast("deque[object]", getattr(scheduler, "GLOBAL_RUN_CONTEXT").runner.runq)  # noqa: B009


@contextmanager
def deterministic(seed: str, deferral: float = 0.0) -> Generator[None]:
    """Let Trio runs that begin in the body schedule their tasks by `seed` alone.

    Args:
        seed: names the order.
        deferral: from 0 to below 1, the chance of a ready task to miss a pass.
    """
    saved = {name: getattr(scheduler, name) for name in (FLAG, SOURCE)}
    for name, value in ((FLAG, True), (SOURCE, StarvingRandom(f"{seed}/schedule", deferral))):
        setattr(scheduler, name, value)
    try:
        yield
    finally:
        for name, value in saved.items():
            setattr(scheduler, name, value)


def shape_problem() -> str | None:
    """Say what of Trio's scheduler is not as this module needs it; None: nothing."""
    if not isinstance(getattr(scheduler, FLAG, None), bool):
        return f"trio._core._run.{FLAG} is no bool any more (trio {trio.__version__})"
    if not isinstance(getattr(scheduler, SOURCE, None), random.Random):
        return f"trio._core._run.{SOURCE} is no random.Random any more (trio {trio.__version__})"
    source = inspect.getsource(scheduler)
    for line in (
        "batch = list(runner.runq)",
        "runner.runq.clear()",
        f"if {FLAG}:",
        "batch.sort(key=lambda t: t._counter)",
        f"{SOURCE}.shuffle(batch)",
    ):
        if line not in source:
            return f"trio {trio.__version__} has no line {line!r} in its scheduler any more"
    return None
