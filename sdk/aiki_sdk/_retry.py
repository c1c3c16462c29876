"""Retry policies: pure values that say whether and when to try again.

`attempt` counts from 1; `delay_after(n, …)` is asked after attempt n has failed. Delays in seconds:

* fixed: `delay`
* exponential: ``min(base_delay * factor ** (n - 1), max_delay)``
* jittered: a random share, from none to all, of ``base_delay * factor ** (n - 1)``, then at most
  `max_delay`

each rounded up to a millisecond. Invariant: 0 ≤ delay ≤ 100 years, and ≤ `max_delay` (rounded up).

Exception types are kept as types where the policy was written, and as qualified names once it has
travelled; both forms decide alike.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal, TypeAlias, cast, get_args

from attrs import field, frozen

from aiki_sdk._durations import DURATION_S_MAX, Duration, optional_seconds, seconds
from aiki_sdk._error_info import ErrorInfo, type_name
from aiki_sdk._errors import AikiError, ChildFailed, InvalidRequest, RetryAfter, TaskFailed
from aiki_sdk._json import JsonValue

RetryKind: TypeAlias = Literal["never", "fixed", "exponential", "jittered"]
ErrorType: TypeAlias = type[BaseException] | str
ErrorTypes: TypeAlias = Sequence[ErrorType]

ATTEMPTS_MAX: Final = 1_000_000_000
"""A policy that should go on for ever may say so with a number that it will not reach."""

_Matches: TypeAlias = Callable[[ErrorType], bool]

_KINDS: Final = frozenset[str](get_args(RetryKind))


def _check_types(name: str, types: object) -> tuple[ErrorType, ...]:
    if _is_error_type(types):
        return (cast("ErrorType", types),)
    if isinstance(types, list | tuple):
        found = tuple(cast("Sequence[object]", types))
        if all(map(_is_error_type, found)):
            return cast("tuple[ErrorType, ...]", found)
    message = f"{name}={types!r} is not valid: pass exception types, such as (TimeoutError,)"
    raise InvalidRequest(message)


def _is_error_type(item: object) -> bool:
    return isinstance(item, str) or (isinstance(item, type) and issubclass(item, BaseException))


@frozen
class Retry:
    """When to try again. Make one with `never`, `fixed`, `exponential` or `jittered`.

    Attributes:
        kind: the rule for delays.
        max_attempts: how often to try in all, the first time included.
        base_delay_s: the delay of `fixed`, the first delay of the others, in seconds.
        factor: by how much each delay is longer than the one before.
        max_delay_s: no delay is longer, in seconds; None: 100 years.
        only: if not empty, errors of other types end the retries.
        never_on: errors of these types end the retries, also if `only` names them.
    """

    kind: RetryKind = "never"
    max_attempts: int = 1
    base_delay_s: float = 0.0
    factor: float = 2.0
    max_delay_s: float | None = None
    only: tuple[ErrorType, ...] = field(default=())
    never_on: tuple[ErrorType, ...] = field(default=())

    def __attrs_post_init__(self) -> None:
        attempts = cast("object", self.max_attempts)
        if self.kind not in _KINDS:
            message = f"kind={self.kind!r} is not valid: use one of {', '.join(sorted(_KINDS))}"
            raise InvalidRequest(message)
        if (
            not isinstance(attempts, int)
            or isinstance(attempts, bool)
            or not (1 <= attempts <= ATTEMPTS_MAX)
        ):
            message = f"max_attempts={attempts!r} is not valid: pass an integer of at least 1"
            raise InvalidRequest(message)
        factor = cast("object", self.factor)
        if not isinstance(factor, int | float) or not (1 <= factor < math.inf):
            message = f"factor={factor!r} is not valid: pass a number of at least 1"
            raise InvalidRequest(message)

    @classmethod
    def never(cls) -> "Retry":
        """Try once. The default."""
        return _NEVER

    @classmethod
    def fixed(
        cls,
        max_attempts: int,
        delay: Duration,
        *,
        only: ErrorTypes = (),
        never: ErrorTypes = (),
    ) -> "Retry":
        """Wait the same time between attempts.

        Args:
            max_attempts: how often to try in all.
            delay: seconds or a timedelta between attempts.
            only: exception types; any other ends the retries.
            never: exception types that end the retries.

        Raises:
            InvalidRequest: naming the parameter and its value.
        """
        return cls(
            kind="fixed",
            max_attempts=max_attempts,
            base_delay_s=seconds("delay", delay),
            factor=1.0,
            only=_check_types("only", only),
            never_on=_check_types("never", never),
        )

    @classmethod
    def exponential(
        cls,
        max_attempts: int,
        base_delay: Duration,
        factor: float = 2,
        max_delay: Duration | None = None,
        *,
        only: ErrorTypes = (),
        never: ErrorTypes = (),
    ) -> "Retry":
        """Wait `factor` times as long after every attempt, but never longer than `max_delay`.

        Args:
            max_attempts: how often to try in all.
            base_delay: seconds or a timedelta after the first attempt.
            factor: by how much each delay is longer than the one before; at least 1.
            max_delay: seconds or a timedelta that no delay exceeds.
            only: exception types; any other ends the retries.
            never: exception types that end the retries.

        Raises:
            InvalidRequest: naming the parameter and its value.
        """
        return cls(
            kind="exponential",
            max_attempts=max_attempts,
            base_delay_s=seconds("base_delay", base_delay),
            factor=factor,
            max_delay_s=optional_seconds("max_delay", max_delay),
            only=_check_types("only", only),
            never_on=_check_types("never", never),
        )

    @classmethod
    def jittered(
        cls,
        max_attempts: int,
        base_delay: Duration,
        factor: float = 2,
        max_delay: Duration | None = None,
        *,
        only: ErrorTypes = (),
        never: ErrorTypes = (),
    ) -> "Retry":
        """Wait a random share of the exponential delay, so that many do not come back at once.

        Args:
            max_attempts: how often to try in all.
            base_delay: seconds or a timedelta: the most that the first delay can be.
            factor: by how much that grows with every attempt; at least 1.
            max_delay: seconds or a timedelta that no delay exceeds.
            only: exception types; any other ends the retries.
            never: exception types that end the retries.

        Raises:
            InvalidRequest: naming the parameter and its value.
        """
        return cls(
            kind="jittered",
            max_attempts=max_attempts,
            base_delay_s=seconds("base_delay", base_delay),
            factor=factor,
            max_delay_s=optional_seconds("max_delay", max_delay),
            only=_check_types("only", only),
            never_on=_check_types("never", never),
        )

    @staticmethod
    def after(delay: Duration, message: str = "") -> RetryAfter:
        """Return an error to raise: try again after this delay instead of the policy's.

        The policy's `max_attempts` still counts.

        Args:
            delay: seconds or a timedelta.
            message: why, for the journal.

        Raises:
            InvalidRequest: if the delay is not valid.
        """
        return RetryAfter(seconds("delay", delay), message)

    def delay_after(self, attempt: int, rng_value: float) -> float | None:
        """Return the delay after a failed attempt, in seconds, or None if it was the last.

        Args:
            attempt: the attempt that failed, from 1.
            rng_value: chance from 0 to 1; used by `jittered` only.
        """
        assert attempt >= 1, attempt
        assert 0 <= rng_value <= 1, rng_value
        if attempt >= self.max_attempts:
            return None
        delay = self._grown(attempt)
        if self.kind == "jittered":
            delay *= rng_value
        if self.max_delay_s is not None:
            delay = min(delay, self.max_delay_s)
        return _round_up_to_ms(delay)

    def delay_on(self, attempt: int, error: BaseException, rng_value: float) -> float | None:
        """Return the delay after this error ended an attempt, or None if that is final.

        It puts `retries`, `delay_after` and `Retry.after` together.
        """
        if not self.retries(error):
            return None
        delay = self.delay_after(attempt, rng_value)
        if delay is not None and isinstance(error, RetryAfter):
            return _round_up_to_ms(min(error.delay_s, DURATION_S_MAX))
        return delay

    def retries(self, error: BaseException) -> bool:
        """Tell whether an error of this kind may be tried again at all.

        Cancellation and other errors that are no `Exception` never are, nor are those whose own
        class says so (`NonRetryable`). Of a `TaskFailed` or `ChildFailed` its recorded error counts
        as well as itself.
        """
        if isinstance(error, TaskFailed | ChildFailed):
            recorded = error.error.type
        elif isinstance(error, AikiError) and not error.retryable:
            return False
        else:
            recorded = ""
        if isinstance(error, RetryAfter):
            return True
        if not isinstance(error, Exception):
            return False
        names = {type_name(cls) for cls in type(error).__mro__} | {recorded}
        return self._allows(
            lambda wanted: (
                wanted in names
                if isinstance(wanted, str)
                else isinstance(error, wanted) or type_name(wanted) == recorded
            )
        )

    def retries_recorded(self, error: ErrorInfo) -> bool:
        """Tell the same of an error as it was recorded: by the name of its own class only."""
        return self.retries_named((error.type,), retryable=error.retryable)

    def retries_named(self, names: Collection[str], *, retryable: bool = True) -> bool:
        """Tell the same of an error that was raised in another process.

        Args:
            names: its class and the bases of that, as `type_name` gives them.
            retryable: what the error says of itself.
        """
        return retryable and self._allows(
            lambda wanted: (wanted if isinstance(wanted, str) else type_name(wanted)) in names
        )

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form; exception types become their qualified names."""
        body: dict[str, JsonValue] = {"kind": self.kind, "max_attempts": self.max_attempts}
        if self.kind != "never":
            body["base_delay_s"] = self.base_delay_s
            body["factor"] = self.factor
        if self.max_delay_s is not None:
            body["max_delay_s"] = self.max_delay_s
        if self.only:
            body["only"] = [_error_name(wanted) for wanted in self.only]
        if self.never_on:
            body["never"] = [_error_name(wanted) for wanted in self.never_on]
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, JsonValue]) -> "Retry":
        """Read the JSON form.

        Raises:
            InvalidRequest: naming the field and its value.
        """
        kind = body.get("kind")
        if kind == "never":
            return _NEVER
        return cls(
            kind=cast("RetryKind", kind),
            max_attempts=cast("int", body.get("max_attempts")),
            base_delay_s=seconds("base_delay_s", body.get("base_delay_s", 0)),
            factor=cast("float", body.get("factor", 2.0)),
            max_delay_s=optional_seconds("max_delay_s", body.get("max_delay_s")),
            only=_check_types("only", body.get("only") or ()),
            never_on=_check_types("never", body.get("never") or ()),
        )

    def _allows(self, matches: _Matches) -> bool:
        if any(matches(wanted) for wanted in self.never_on):
            return False
        return not self.only or any(matches(wanted) for wanted in self.only)

    def _grown(self, attempt: int) -> float:
        try:
            return min(self.base_delay_s * self.factor ** (attempt - 1), DURATION_S_MAX)
        except OverflowError:
            return DURATION_S_MAX if self.base_delay_s else 0.0


def _round_up_to_ms(delay_s: float) -> float:
    # Rounded first, or 0.1 * 3 = 0.30000000000000004 would become 0.301.
    return math.ceil(round(delay_s * 1000, 6)) / 1000


def _error_name(wanted: ErrorType) -> str:
    return wanted if isinstance(wanted, str) else type_name(wanted)


_NEVER: Final = Retry()
