"""The pages of error codes, one each, out of the errors' docstrings and the gateway's statuses.

`_generate_api.py` writes them. A docstring of an error has three parts: what it means; a paragraph
that begins with `Raised`; one that begins with `What to do:`. An error that lacks one has no page,
and its code no meaning: that is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from aiki_actors.server import SubscriberTooSlow
from aiki_gateway._problems import STATUSES, TITLES, TYPE_PREFIX
from aiki_sdk import AikiError
from aiki_sdk._errors import ERRORS_BY_CODE

DO: Final = "What to do: "

OTHER_STATUSES: Final = {
    "invalid-request": (
        "403 (an origin or host that is not allowed), 405 (the method), 408 (the body did not "
        "arrive in time), 415 (the body is not JSON)"
    ),
    "limit-exceeded": "429 (too many requests or streams; `Retry-After` tells the seconds)",
}
"""Refusals that are about HTTP itself, by code."""

CLASSES: Final[dict[str, type[AikiError]]] = {
    **ERRORS_BY_CODE,
    SubscriberTooSlow.code: SubscriberTooSlow,
}
"""The class of every code that HTTP answers with."""


def paragraphs(cls: type[AikiError]) -> list[str]:
    """Return the paragraphs of a class's docstring, each on one line."""
    return [
        re.sub(r"\s+", " ", text.replace("``", "`")).strip()
        for text in (cls.__doc__ or "").split("\n\n")
    ]


def page_of(code: str, generated: str) -> Iterator[str]:
    """Yield the lines of the page of a code."""
    cls = CLASSES[code]
    meaning, *rest = paragraphs(cls)
    raised = [text for text in rest if text.startswith("Raised ")]
    advice = [text.removeprefix(DO) for text in rest if text.startswith(DO)]
    assert len(raised) == len(advice) == 1, f"the docstring of {cls.__name__} lacks a part"
    status = STATUSES[code]
    others = f"; also {OTHER_STATUSES[code]}" if code in OTHER_STATUSES else ""
    again = "yes: the same thing, done again unchanged, may succeed" if cls.retryable else "no"
    yield from (f"# {code}", "", generated, "", meaning, "")
    yield from ("| | |", "|---|---|")
    yield f"| exception | `{cls.__name__}` |"
    yield f'| HTTP status | {status}, "{TITLES[status]}"{others} |'
    yield f"| retryable | {again} |"
    yield f"| `type` of the problem | `{TYPE_PREFIX}{code}` |"
    yield from ("", "## When", "", raised[0], "", "## What to do", "", advice[0], "")
    yield "[All errors](../errors.md) · [Errors over HTTP](../http-errors.md)"


def error_pages(generated: str) -> dict[str, list[str]]:
    """Return the lines of every page, by code; `generated` is the note that they are."""
    return {code: list(page_of(code, generated)) for code in STATUSES}
