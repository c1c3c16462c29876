"""What every adapter's listing has in common: cursors, and the bounds of a page."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from string import ascii_lowercase, ascii_uppercase
from typing import Final

from aiki_actors.engine import Micros, Projection
from aiki_sdk import InvalidRequest, PayloadError, dumps, loads

from ._port import RunFilter
from ._times import micros_of

_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)

CursorKey = tuple[int, str]
"""Where a page ended: `created_at` and id of its last run."""


def write_cursor(last: Projection) -> str:
    """Return the cursor of the page after the one that ends with `last`."""
    return urlsafe_b64encode(dumps([last.created_at, last.run_id])).decode().rstrip("=")


def read_cursor(cursor: str) -> CursorKey:
    """Read a cursor.

    Raises:
        InvalidRequest: it did not come from a page of this listing.
    """
    try:
        key = loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, PayloadError) as error:
        raise _not_a_cursor(cursor) from error
    match key:
        case [int(created_at), str(run_id)]:
            return created_at, run_id
        case _:
            raise _not_a_cursor(cursor)


def _not_a_cursor(cursor: str) -> InvalidRequest:
    return InvalidRequest(
        f"{cursor!r} is not a cursor; pass the `cursor` of the page before, or none to start over"
    )


def check_limit(limit: int) -> None:
    """Refuse a page without rows.

    Raises:
        InvalidRequest: the limit is below 1.
    """
    if limit < 1:
        raise InvalidRequest(f"limit is {limit}; ask for at least 1")


def folded(text: str) -> str:
    """Return a text with its ASCII letters in lower case, as databases do it everywhere."""
    return text.translate(_LOWER)


def words_of(where: RunFilter) -> tuple[str, ...]:
    """Return the words that are searched for, folded."""
    return tuple(dict.fromkeys(folded(where.query or "").split()))


def created_bounds(where: RunFilter) -> tuple[Micros | None, Micros | None]:
    """Return the half-open bounds [after, before) of `created_at`.

    Raises:
        InvalidRequest: a time has no time zone.
    """
    try:
        after = None if where.created_after is None else micros_of(where.created_after)
        before = None if where.created_before is None else micros_of(where.created_before)
    except ValueError as error:
        raise InvalidRequest(f"created_after, created_before: {error}") from error
    return after, before
