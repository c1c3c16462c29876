"""Statuses as users write them: members or words, one or several."""

from collections.abc import Iterable
from typing import TypeAlias, cast

from aiki_sdk._errors import InvalidRequest
from aiki_sdk.protocol import RunStatus
from aiki_sdk.protocol._requests import check_word

StatusWords: TypeAlias = RunStatus | str | Iterable[RunStatus | str]
"""One status or several."""


def check_statuses(status: StatusWords | None) -> tuple[RunStatus, ...]:
    """Return the statuses that are meant, each once; none for None.

    Raises:
        InvalidRequest: naming what is not a status, and the words that there are.
    """
    given = cast("object", () if status is None else status)
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, Iterable):
        message = f"status={status!r} is not valid: pass a status or several"
        raise InvalidRequest(message)
    words = [check_word("status", item, RunStatus) for item in cast("Iterable[object]", given)]
    # In the order of the enumeration, so that a set gives the same query every time.
    return tuple(member for member in RunStatus if member in words)
