"""Time, identity and chance: the three things that code must not take from the world by itself.

Everything that needs them is given a `Clock`, `Ids` or `Rng`. The real ones read the machine; their
deterministic twins (`TrioClock`, `SeededIds`, `SeededRng`) read Trio's clock and a seed, so that a
whole cluster runs in one process, skips time, and does the same again for the same seed.

Ids are a prefix and a ULID: 48 bits of milliseconds, 80 bits of chance, 26 characters that sort by
time. Order is never taken from them (`seq` is for that); sorting only keeps index pages warm.
"""

import random
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_CHANCE_BITS: Final = 80
_SEEDED_EPOCH_MS: Final = 1_767_225_600_000
"""2026-01-01 UTC: where the ids of a seeded run begin."""


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """Return the wall time: aware, UTC, with microseconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start, never going back."""
        ...


class Ids(Protocol):
    """New identifiers."""

    def run_id(self) -> str:
        """Return `run_` and a ULID."""
        ...

    def schedule_id(self) -> str:
        """Return `sch_` and a ULID."""
        ...

    def worker_id(self) -> str:
        """Return `wrk_` and a ULID."""
        ...

    def claim_id(self) -> str:
        """Return 128 bits that nobody can guess, as 32 hexadecimal digits."""
        ...

    def notice_id(self) -> str:
        """Return `ntc_` and a ULID: the id of a message that must be recognised when repeated."""
        ...


class Rng(Protocol):
    """Chance."""

    def random(self) -> float:
        """Return a number from 0 (included) to 1 (excluded), evenly distributed."""
        ...


def ulid(milliseconds: int, chance: int) -> str:
    """Write a ULID: 26 characters of Crockford's base 32.

    Args:
        milliseconds: since 1970, 48 bits.
        chance: 80 bits.
    """
    value = (milliseconds << _CHANCE_BITS) | chance
    # 130 bits in 13 steps of two characters; the two highest bits are always zero.
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now(self) -> datetime:
        """Return the wall time: aware, UTC, with microseconds."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start, never going back."""
        return time.monotonic()


class TrioClock:
    """A wall clock that follows Trio's, and so skips time under `trio.testing.MockClock`.

    Works only inside `trio.run`. Two clocks with the same epoch and origin agree.
    """

    __slots__ = ("_epoch", "_origin_s")

    def __init__(self, epoch: datetime, *, origin_s: float = 0.0) -> None:
        """Say what time it is when `trio.current_time()` is `origin_s`; a MockClock starts at 0."""
        if epoch.tzinfo is None:
            message = f"epoch {epoch!r} has no time zone; pass an aware datetime"
            raise ValueError(message)
        self._epoch = epoch.astimezone(UTC)
        self._origin_s = origin_s

    def now(self) -> datetime:
        """Return the wall time: aware, UTC, with microseconds."""
        return self._epoch + timedelta(seconds=self.monotonic() - self._origin_s)

    def monotonic(self) -> float:
        """Return Trio's current time, in seconds."""
        import trio

        return trio.current_time()


class SystemIds:
    """Ids from the machine's clock and its source of secrets.

    Within one process ids of a kind never go back: of two in the same millisecond the second is the
    first plus one, as the ULID specification has it.
    """

    __slots__ = ("_clock", "_last_chance", "_last_ms")

    def __init__(self, clock: Clock | None = None) -> None:
        """Take the time from `clock`, or from the machine."""
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._last_ms = -1
        self._last_chance = 0

    def run_id(self) -> str:
        """Return `run_` and a ULID."""
        return f"run_{self._next()}"

    def schedule_id(self) -> str:
        """Return `sch_` and a ULID."""
        return f"sch_{self._next()}"

    def worker_id(self) -> str:
        """Return `wrk_` and a ULID."""
        return f"wrk_{self._next()}"

    def claim_id(self) -> str:
        """Return 128 bits that nobody can guess, as 32 hexadecimal digits."""
        return secrets.token_hex(16)

    def notice_id(self) -> str:
        """Return `ntc_` and a ULID."""
        return f"ntc_{self._next()}"

    def _next(self) -> str:
        milliseconds = int(self._clock.now().timestamp() * 1000)
        if milliseconds > self._last_ms:
            self._last_ms = milliseconds
            # One bit less than there is room for, so that counting up cannot overflow.
            self._last_chance = secrets.randbits(_CHANCE_BITS - 1)
        else:
            self._last_chance += 1
        return ulid(self._last_ms, self._last_chance)


class SystemRng:
    """Chance from the machine."""

    __slots__ = ("_random",)

    def __init__(self) -> None:
        """Seed from the machine's entropy."""
        self._random = random.Random()  # noqa: S311  # jitter, not secrets

    def random(self) -> float:
        """Return a number from 0 (included) to 1 (excluded), evenly distributed."""
        return self._random.random()


class SeededRng:
    """Chance from a seed: the same numbers in every process."""

    __slots__ = ("_random",)

    def __init__(self, seed: int | str) -> None:
        """Start the sequence that belongs to `seed`."""
        # Seeding with text does not depend on the hash seed, and names the stream.
        self._random = random.Random(f"{seed}/rng")  # noqa: S311  # determinism is the point

    def random(self) -> float:
        """Return a number from 0 (included) to 1 (excluded), evenly distributed."""
        return self._random.random()


class SeededIds:
    """Ids from a seed: the same in every process, each a millisecond after the one before."""

    __slots__ = ("_count", "_random")

    def __init__(self, seed: int | str) -> None:
        """Start the sequence that belongs to `seed`."""
        self._random = random.Random(f"{seed}/ids")  # noqa: S311  # determinism is the point
        self._count = 0

    def run_id(self) -> str:
        """Return `run_` and a ULID."""
        return f"run_{self._next()}"

    def schedule_id(self) -> str:
        """Return `sch_` and a ULID."""
        return f"sch_{self._next()}"

    def worker_id(self) -> str:
        """Return `wrk_` and a ULID."""
        return f"wrk_{self._next()}"

    def claim_id(self) -> str:
        """Return 32 hexadecimal digits; guessable by who knows the seed."""
        return f"{self._random.getrandbits(128):032x}"

    def notice_id(self) -> str:
        """Return `ntc_` and a ULID."""
        return f"ntc_{self._next()}"

    def _next(self) -> str:
        self._count += 1
        return ulid(_SEEDED_EPOCH_MS + self._count, self._random.getrandbits(_CHANCE_BITS))
