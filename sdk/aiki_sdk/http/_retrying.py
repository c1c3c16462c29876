"""When to try again: exponential pauses, shortened by chance, for so often or so long.

Chance keeps clients that failed together from coming back together.
"""

from collections.abc import Callable

from attrs import define, field

from aiki_sdk._ports import Rng
from aiki_sdk.http._settings import HttpSettings


@define(eq=False)
class Tries:
    """The attempts at one thing.

    Patient ones go on for `reconnect_s`, however often that is; others for `attempts_max` attempts.
    """

    _settings: HttpSettings
    _rng: Rng
    _monotonic: Callable[[], float]
    _patient: bool = field(default=False, alias="patient")
    _failed: int = field(default=0, init=False)
    _since_s: float = field(default=0.0, init=False)

    def succeed(self) -> None:
        """Begin to count anew."""
        self._failed = 0

    def pause_s(self, retry_after_s: float | None = None) -> float | None:
        """Count a failure, and return the seconds until the next attempt; None: give up."""
        now = self._monotonic()
        if not self._failed:
            self._since_s = now
        self._failed += 1
        settings = self._settings
        # The exponent is bounded, for a wait may fail often.
        longest = min(settings.backoff_max_s, settings.backoff_s * 2 ** min(self._failed - 1, 32))
        pause = longest * (0.5 + self._rng.random() / 2)
        if retry_after_s is not None:
            if retry_after_s > settings.timeout_s:
                return None
            pause = max(pause, retry_after_s)
        if self._patient:
            return None if now + pause > self._since_s + settings.reconnect_s else pause
        return None if self._failed >= settings.attempts_max else pause
