"""What is typed as an argument: JSON, lengths of time, times, pairs, and the filters of a list."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, cast

from aiki_sdk import InvalidRequest, JsonValue, PayloadError, SystemClock, loads
from aiki_sdk.client import RunFilters

INPUT_MAX: Final = 8 * 1024 * 1024
"""Bytes read as an input; a payload may have 2 MiB."""

_UNITS: Final[Mapping[str, timedelta]] = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def json_argument(name: str, text: str) -> JsonValue:
    """Read JSON from an argument: the text itself, `@file`, or `-` for standard input.

    Raises:
        InvalidRequest: naming the argument.
    """
    try:
        if text == "-":
            data = sys.stdin.buffer.read(INPUT_MAX)
        else:
            data = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
        return loads(data)
    except (OSError, PayloadError) as error:
        message = f"--{name} {text[:80]!r} is not valid JSON: {error}; a text needs its quotes"
        raise InvalidRequest(message) from error


def span_argument(name: str, text: str) -> timedelta:
    """Read a length of time: seconds, or a number with a unit (`90s`, `5m`, `2h`, `3d`).

    Raises:
        InvalidRequest: naming the argument.
    """
    unit = _UNITS.get(text[-1:], None)
    number = text if unit is None else text[:-1]
    try:
        return float(number) * (unit or _UNITS["s"])
    except (ValueError, OverflowError) as error:
        message = f"--{name} {text!r} is not valid: pass seconds, or 90s, 5m, 2h, 3d"
        raise InvalidRequest(message) from error


def time_argument(name: str, text: str) -> datetime:
    """Read a time: ISO 8601 with a zone, or a length of time before now.

    Raises:
        InvalidRequest: naming the argument.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return SystemClock().now() - span_argument(name, text)
    if at.tzinfo is None:
        message = f"--{name} {text!r} is not valid: add the zone, as in 2026-01-31T12:00:00Z"
        raise InvalidRequest(message)
    return at


def pairs_argument(name: str, texts: list[str] | None) -> dict[str, str]:
    """Read `NAME=VALUE` arguments.

    Raises:
        InvalidRequest: naming the one that has no `=`.
    """
    pairs: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals:
            message = f"--{name} {text!r} is not valid: write NAME=VALUE"
            raise InvalidRequest(message)
        pairs[key] = value
    return pairs


def filters_of(arguments: Namespace) -> RunFilters:
    """Make the filters of a list from the flags that were given."""
    filters: RunFilters = {
        "status": cast("list[str] | None", arguments.status) or None,
        "workflow": arguments.workflow,
        "version": arguments.version,
        "reference_id": arguments.reference_id,
        "parent_id": arguments.parent_id,
        "labels": pairs_argument("label", arguments.label),
        "query": arguments.query,
        "undeliverable": arguments.undeliverable,
    }
    if arguments.since is not None:
        filters["created_after"] = time_argument("since", arguments.since)
    return filters
