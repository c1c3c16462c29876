"""Times and durations as JSON: ISO 8601 in UTC, and seconds.

Both are exact: what is read back is the same number of microseconds. A time has six decimals and
`Z`; it must lie in the years 1 to 9999. A duration is a number of seconds, whole when it is whole.
A double keeps every microsecond apart up to 2**32 seconds (136 years; the engine allows waits of
100 years), and more than that is refused instead of rounded.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from aiki_actors.engine import Micros

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = 1_000_000
_DURATION_MAX: Final = 2**32 * _SECOND
"""Up to here neighbouring doubles are less than half a microsecond apart, products included."""


def micros_to_iso(at: Micros) -> str:
    """Write a time, such as `2026-11-22T20:48:40.123456Z`.

    Raises:
        ValueError: it is not in the years 1 to 9999.
    """
    seconds, rest = divmod(at, _SECOND)
    return f"{_second(seconds)}{rest:06d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    """Write a whole second up to the point; neighbouring entries share it, hence the cache."""
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        message = f"time {seconds} s after 1970 is not in the years 1 to 9999; shorten the wait"
        raise ValueError(message) from error
    return moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%dT%H:%M:%S.")


def micros_from_iso(text: str) -> Micros:
    """Read a time with an offset (`Z` or `+02:00`).

    Raises:
        ValueError: it is not an ISO 8601 time, or has no offset.
    """
    return micros_of(datetime.fromisoformat(text))


def micros_of(moment: datetime) -> Micros:
    """Turn an aware datetime into microseconds.

    Raises:
        ValueError: it has no time zone.
    """
    if moment.tzinfo is None:
        message = f"time {moment.isoformat()} has no time zone; pass an aware datetime"
        raise ValueError(message)
    since = moment - _EPOCH
    return Micros((since.days * 86_400 + since.seconds) * _SECOND + since.microseconds)


def micros_to_seconds(duration: Micros) -> int | float:
    """Write a duration in seconds.

    Raises:
        ValueError: it is longer than 2**32 seconds, where microseconds would be lost.
    """
    if abs(duration) >= _DURATION_MAX:
        message = f"duration of {duration // _SECOND} s is longer than 136 years; shorten it"
        raise ValueError(message)
    seconds, rest = divmod(duration, _SECOND)
    return duration / _SECOND if rest else seconds


def micros_from_seconds(seconds: float) -> Micros:
    """Read a duration in seconds."""
    return Micros(seconds * _SECOND if isinstance(seconds, int) else round(seconds * _SECOND))
