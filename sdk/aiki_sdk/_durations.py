"""Durations as users write them: a `timedelta`, or seconds as a number."""

import math
from datetime import timedelta
from typing import Final, TypeAlias

from aiki_sdk._errors import InvalidRequest

Duration: TypeAlias = timedelta | float
"""A `timedelta`, or seconds."""

DURATION_S_MAX: Final = 100 * 365.25 * 86_400
"""100 years, in seconds: longer than anything that is meant, shorter than any overflow."""


def seconds(name: str, value: object, *, zero: bool = True) -> float:
    """Return a duration in seconds.

    Args:
        name: the parameter, for the message.
        value: a timedelta or a number of seconds.
        zero: whether 0 is allowed.

    Raises:
        InvalidRequest: naming the parameter, the value and the rule.
    """
    number: object = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(number, int | float)
        and not isinstance(number, bool)
        and (0 < number <= DURATION_S_MAX or (zero and number == 0))
    ):
        return float(number)
    least = "at least 0" if zero else "more than 0"
    message = (
        f"{name}={value!r} is not valid: pass seconds or a timedelta, {least}, at most 100 years"
    )
    raise InvalidRequest(message)


def optional_seconds(name: str, value: object, *, zero: bool = True) -> float | None:
    """Return a duration in seconds, or None for None.

    Raises:
        InvalidRequest: as `seconds`.
    """
    return None if value is None else seconds(name, value, zero=zero)


MICROS_MAX: Final = 100 * 366 * 86_400 * 1_000_000
"""Longest sleep or timeout of a run, 100 years in microseconds."""


def duration_micros(what: str, duration: object) -> int:
    """Return a duration in microseconds; it may be zero or negative.

    Raises:
        InvalidRequest: naming what it is the duration of.
    """
    if isinstance(duration, timedelta):
        return round(duration / timedelta(microseconds=1))
    if isinstance(duration, int | float) and not isinstance(duration, bool):
        number = float(duration)
        if math.isfinite(number):
            return round(number * 1_000_000)
    message = f"the duration of {what} is {duration!r}; pass a timedelta or seconds"
    raise InvalidRequest(message)


def bounded_micros(what: str, micros: int) -> int:
    """Return a number of microseconds that is at most 100 years.

    Raises:
        InvalidRequest: it is more.
    """
    if micros > MICROS_MAX:
        message = f"{what} would last {micros / 1_000_000:g} s; the maximum is 100 years"
        raise InvalidRequest(message)
    return micros
