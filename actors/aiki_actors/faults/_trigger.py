"""What happens at a fault point: nothing, or what the environment asked for.

Which of the two is decided once, when this module is imported. Without `AIKI_FAULT` in the
environment `fault_point` is an empty function, and nothing can arm it later. With it (an empty
value counts) every passing is counted, and `arm_faults` may replace the plan, as a process that
forks does for each of its children.

Invariant: a planned fault strikes once, at exactly the n-th passing of its point in this process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Final

from attrs import frozen

from ._points import FAULT_POINTS

VARIABLE: Final = "AIKI_FAULT"
"""The environment variable: `<point>:<n>[:<action>]`, several of them with commas between."""

EXIT_CODE: Final = 70
"""What a process ends with that was told to exit."""

_ACTIONS: Final[Mapping[str, Callable[[], None]]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "exit": lambda: os._exit(EXIT_CODE),
}

_NAMES: Final = frozenset(point.name for point in FAULT_POINTS)


class FaultPlanError(ValueError):
    """A plan of faults cannot be read; the message names the part and what it should be."""


@frozen
class PlannedFault:
    """At the `number`-th passing (from 1) of `point`, do `action`.

    Attributes:
        point: the name of a registered fault point.
        number: at which passing in this process, counted from 1.
        action: `kill` (SIGKILL), `stop` (SIGSTOP), `term` (SIGTERM), `exit` (at once, code 70).

    """

    point: str
    number: int = 1
    action: str = "kill"

    def __str__(self) -> str:
        return f"{self.point}:{self.number}:{self.action}"


def parse_faults(text: str) -> tuple[PlannedFault, ...]:
    """Read a plan, as it stands in the environment; an empty one plans nothing.

    Raises:
        FaultPlanError: a part names no point or action, or counts from below 1.

    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(part: str) -> PlannedFault:
    point, _, rest = part.partition(":")
    number, _, action = rest.partition(":")
    if point not in _NAMES:
        known = ", ".join(sorted(_NAMES))
        raise FaultPlanError(f"{VARIABLE}: {part!r} names no fault point; known are {known}")
    if not number.isascii() or not (number or "1").isdigit() or number == "0":
        raise FaultPlanError(
            f"{VARIABLE}: {part!r} has the count {number!r}; it must be 1, 2, 3, …, as in {point}:3"
        )
    if action and action not in _ACTIONS:
        known = ", ".join(_ACTIONS)
        raise FaultPlanError(
            f"{VARIABLE}: {part!r} has the action {action!r}; it must be one of {known}"
        )
    return PlannedFault(point, int(number or 1), action or "kill")


class _Trigger:
    """Counts passings, and strikes when one is planned; safe to use from threads."""

    def __init__(self, plan: tuple[PlannedFault, ...]) -> None:
        self._lock = Lock()
        self.arm(plan)

    def arm(self, plan: tuple[PlannedFault, ...]) -> None:
        """Begin to count anew, for this plan."""
        self._plan = {(fault.point, fault.number): fault.action for fault in plan}
        self.passed = dict.fromkeys(sorted(_NAMES), 0)

    def passing(self, name: str) -> None:
        """Count this passing; do what is planned for it."""
        with self._lock:
            self.passed[name] += 1
            action = self._plan.get((name, self.passed[name]))
        if action is not None:
            _ACTIONS[action]()


def _free(name: str, /) -> None:
    """Do nothing: no fault was asked for when this process started."""


_text: Final = os.environ.get(VARIABLE)
_trigger: Final = None if _text is None else _Trigger(parse_faults(_text))

fault_point: Final[Callable[[str], None]] = _free if _trigger is None else _trigger.passing
"""Say that the code has come to a registered point: `fault_point("task.done")`."""


def arm_faults(plan: str) -> None:
    """Replace the plan of this process, and count from 1 again.

    Raises:
        FaultPlanError: the plan cannot be read, or the process was started without `AIKI_FAULT`.

    """
    _armed().arm(parse_faults(plan))


def fault_passings() -> dict[str, int]:
    """Return how often each point was passed since the process was armed.

    Raises:
        FaultPlanError: the process was started without `AIKI_FAULT`.

    """
    return dict(_armed().passed)


def _armed() -> _Trigger:
    if _trigger is None:
        raise FaultPlanError(
            f"this process was started without {VARIABLE} in its environment, so its fault points "
            "are empty; set it (to '' for no fault at first) before aiki_actors is imported"
        )
    return _trigger
