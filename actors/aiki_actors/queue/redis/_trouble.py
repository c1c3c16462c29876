"""What can be wrong with Redis, in words that the health endpoint shows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from attrs import define, field, frozen

from aiki_sdk import Clock, Rng, Unavailable


class Trouble(StrEnum):
    """Why Redis cannot be used."""

    DOWN = "down"
    TIMEOUT = "not-answering"
    LOADING = "loading"
    OUT_OF_MEMORY = "out-of-memory"
    READ_ONLY = "read-only"
    NO_REPLICAS = "no-replicas"
    MISCONFIGURED = "misconfigured"
    WRONG_TYPE = "wrong-type"
    AUTH = "auth"
    NO_GROUP = "no-group"
    TOO_OLD = "too-old"
    CLUSTER = "cluster"
    REFUSED = "refused"


class RedisFailed(Unavailable):
    """Redis could not be reached or refused a command; nothing that counts is lost by it.

    Attributes:
        trouble: why.

    """

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(f"Redis: {message}", details={"trouble": trouble.value})
        self.trouble = trouble


@frozen
class QueueHealth:
    """Whether runs can be handed out through Redis.

    Attributes:
        ok: they can.
        trouble: why not.
        message: the same for a person; never with a password.
        since: since when this is so.

    """

    ok: bool
    trouble: Trouble | None
    message: str
    since: datetime


@define(eq=False)
class HealthState:
    """The health of one user of Redis, put together from its parts; tells whoever asked to know.

    Degraded until every part that it was made with has worked once: what was not tried is not
    promised, and not complained of either.

    Attributes:
        changed: called once it is known how things are, and then with each change of `ok` or of
            the trouble; must not raise or block.

    """

    clock: Clock
    changed: Callable[[QueueHealth], None]
    parts: tuple[str, ...]
    now: QueueHealth = field(init=False)
    _failures: dict[str, RedisFailed] = field(init=False)
    _waiting: RedisFailed = field(init=False)
    _told: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin as not connected yet."""
        waiting = self._waiting = RedisFailed(Trouble.DOWN, "not connected yet")
        self._failures = dict.fromkeys(self.parts, waiting)
        self.now = QueueHealth(False, Trouble.DOWN, waiting.message, self.clock.now())

    def works(self, part: str) -> None:
        """Note that a part works."""
        if self._failures.pop(part, None) is not None:
            self._update()

    def fails(self, part: str, failure: RedisFailed) -> None:
        """Note why a part does not work."""
        self._failures[part] = failure
        self._update()

    def _update(self) -> None:
        failures = [one for one in self._failures.values() if one is not self._waiting]
        if not failures and self._failures:
            return  # some parts work, and of the others nothing is known yet
        failure = next(iter(failures), None)
        trouble = None if failure is None else failure.trouble
        message = "" if failure is None else failure.message
        before = self.now
        if self._told and (before.ok, before.trouble) == (failure is None, trouble):
            return
        self._told = True
        self.now = QueueHealth(failure is None, trouble, message, self.clock.now())
        self.changed(self.now)


@define(eq=False)
class Backoff:
    """Pauses that double, with jitter, so that many do not come back at the same moment."""

    first_s: float
    max_s: float
    rng: Rng
    _failures: int = field(default=0, init=False)

    def next_s(self) -> float:
        """Return the next pause in seconds: between half of it and all of it."""
        pause_s = min(self.max_s, self.first_s * float(1 << min(max(0, self._failures - 1), 30)))
        self._failures += 1
        return pause_s * (0.5 + self.rng.random() / 2)

    def forgives(self, failure: RedisFailed) -> bool:
        """Tell whether to try again at once and say nothing: once, when a connection is found cut.

        That is how a restart looks from a connection that was idle meanwhile.
        """
        if self._failures or failure.trouble is not Trouble.DOWN:
            return False
        self._failures = 1
        return True

    def reset(self) -> None:
        """Begin again with the first pause, because it worked."""
        self._failures = 0
