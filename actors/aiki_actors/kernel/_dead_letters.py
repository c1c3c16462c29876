"""Messages that no actor handled: counted, the latest kept, and shown to whoever subscribes.

Invariant: memory is bounded by `capacity` letters; `count` counts all there ever were.
"""

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum

from attrs import define, field, frozen

logger = logging.getLogger("aiki_actors.kernel")

DEAD_LETTERS_MAX = 256
"""How many letters are kept: enough to see a pattern, small enough to forget about."""


class DeadLetterReason(Enum):
    """Why a message was not handled."""

    ACTOR_STOPPED = "actor stopped"
    """It still waited in the mailbox when its actor ended."""
    HANDLER_FAILED = "handler failed"
    """It was being handled when its actor failed, was killed or was cancelled."""
    DROPPED_OLDEST = "dropped as the oldest"
    """A full mailbox made room for a newer message."""
    DROPPED_NEWEST = "dropped as the newest"
    """A full mailbox kept what it had."""


@frozen(eq=False)
class DeadLetter:
    """One message that was not handled, or not to its end."""

    path: str
    message: object
    reason: DeadLetterReason


@define(eq=False)
class DeadLetters:
    """A bounded ring of the latest dead letters, with the count of all."""

    count: int = field(default=0, init=False)
    _letters: deque[DeadLetter] = field(
        factory=lambda: deque[DeadLetter](maxlen=DEAD_LETTERS_MAX), init=False
    )
    _subscribers: list[Callable[[DeadLetter], None]] = field(
        factory=lambda: list[Callable[[DeadLetter], None]](), init=False
    )

    def add(self, letter: DeadLetter) -> None:
        """Keep `letter` and show it to the subscribers; a subscriber's error is logged."""
        self.count += 1
        self._letters.append(letter)
        for subscriber in self._subscribers:
            try:
                subscriber(letter)
            except Exception:
                logger.exception("a dead letter subscriber failed on a letter to %s", letter.path)

    def latest(self) -> tuple[DeadLetter, ...]:
        """Return the letters that are kept, oldest first."""
        return tuple(self._letters)

    def subscribe(self, callback: Callable[[DeadLetter], None]) -> None:
        """Call `callback` with every later letter; it must be quick and must not block."""
        self._subscribers.append(callback)
