"""Children as data: what to start, when to restart it, how long it may take to stop.

A spec is checked when it is made, so that a mistake shows where it was written and not at a crash.
"""

import math
from collections.abc import Callable
from typing import Generic, Never, TypeVar

from attrs import field, frozen

from aiki_actors.kernel._actor import Actor
from aiki_actors.kernel._errors import SpecError
from aiki_actors.kernel._mailbox import MailboxPolicy
from aiki_actors.kernel._restarts import Backoff, Restart, Strategy

M_contra = TypeVar("M_contra", contravariant=True)

SHUTDOWN_S = 5.0
"""Seconds a child may take to stop; Erlang/OTP's default for workers."""

INTENSITY = 3
"""Restarts tolerated per period. OTP allows 1 in 5 s; a little more rides out a short outage."""

PERIOD_S = 10.0
"""The length of the restart window in seconds."""


def _check_id(kind: str, value: str) -> None:
    if not value or "/" in value:
        raise SpecError(f"{kind}.id is {value!r}; it must be a non-empty string without '/'")


@frozen(eq=False)
class ChildSpec(Generic[M_contra]):
    """One actor to supervise.

    Attributes:
        id: Unique among its siblings; part of its path.
        start: Makes a fresh instance, for the start and for every restart.
        restart: Whether it is started again when it ends by itself.
        shutdown_s: Seconds it may take to stop, finishing its handler included; then it is killed.
            0 kills at once.
        mailbox: How many messages may wait, and what happens to one more.

    Raises:
        SpecError: A field is invalid.
    """

    id: str
    start: Callable[[], Actor[M_contra]]
    restart: Restart = Restart.PERMANENT
    shutdown_s: float = SHUTDOWN_S
    mailbox: MailboxPolicy = MailboxPolicy()

    def __attrs_post_init__(self) -> None:
        """Refuse invalid fields."""
        _check_id("ChildSpec", self.id)
        if not callable(self.start):
            raise SpecError(
                f"ChildSpec.start of {self.id!r} is {self.start!r}; it must be callable"
            )
        if not 0 <= self.shutdown_s < math.inf:
            raise SpecError(
                f"ChildSpec.shutdown_s of {self.id!r} is {self.shutdown_s!r}; it must be finite "
                "and >= 0 (only a supervisor may take for ever)"
            )


@frozen(eq=False, kw_only=True)
class SupervisorSpec:
    """A supervisor and its static children.

    Attributes:
        id: Unique among its siblings. The root's is not used: the system's name is.
        children: Started left to right, each after the one before has started; stopped right to
            left. Specs of actors and of supervisors.
        strategy: Which children are restarted when one of them is.
        intensity: Restarts tolerated within `period_s`; one more, and the supervisor fails.
        period_s: The length of the restart window in seconds.
        backoff: How long to wait before a restart.
        restart: Whether this supervisor is restarted when it fails.
        shutdown_s: Seconds it may take to stop its children; infinite by default, since each of
            its children has its own limit.

    Raises:
        SpecError: A field is invalid.
    """

    id: str = "root"
    children: "tuple[ChildSpec[Never] | SupervisorSpec, ...]" = ()
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = INTENSITY
    period_s: float = PERIOD_S
    backoff: Backoff = field(factory=Backoff)
    restart: Restart = Restart.PERMANENT
    shutdown_s: float = math.inf

    def __attrs_post_init__(self) -> None:
        """Refuse invalid fields."""
        _check_id("SupervisorSpec", self.id)
        if self.intensity < 0:
            raise SpecError(f"SupervisorSpec.intensity is {self.intensity!r}; it must be >= 0")
        if not 0 < self.period_s < math.inf:
            raise SpecError(
                f"SupervisorSpec.period_s is {self.period_s!r}; it must be finite and above 0"
            )
        if not self.shutdown_s >= 0:
            raise SpecError(f"SupervisorSpec.shutdown_s is {self.shutdown_s!r}; it must be >= 0")
        seen: dict[str, None] = {}
        for child in self.children:
            if child.id in seen:
                raise SpecError(
                    f"SupervisorSpec.children of {self.id!r} has the id {child.id!r} twice"
                )
            seen[child.id] = None
