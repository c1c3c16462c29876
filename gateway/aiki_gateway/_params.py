"""Parameters of queries that several routes have: the filters of a list, and its pages."""

from __future__ import annotations

from typing import Final

from aiki_sdk import JsonValue
from aiki_sdk.protocol import (
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    QUERY_LENGTH_MAX,
    RunStatus,
)

from ._call import Param

TEXT: Final[dict[str, JsonValue]] = {"type": "string"}
NAME: Final[dict[str, JsonValue]] = {
    "type": "string",
    "maxLength": 128,
    "pattern": "^[A-Za-z0-9][A-Za-z0-9._/-]*$",
}
VERSION: Final[dict[str, JsonValue]] = {
    "type": "string",
    "maxLength": 64,
    "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$",
}
TIME: Final[dict[str, JsonValue]] = {"type": "string", "format": "date-time"}
STATUS: Final[dict[str, JsonValue]] = {
    "type": "string",
    "enum": [status.value for status in RunStatus],
}
PLACE: Final[dict[str, JsonValue]] = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}

FILTERS: Final = (
    Param(name="status", schema=STATUS, about="Any of these statuses.", many=True),
    Param(name="workflow", schema=NAME, about="Runs of this workflow."),
    Param(name="version", schema=VERSION, about="Runs of this version."),
    Param(name="reference_id", schema=TEXT, about="Runs with this reference id."),
    Param(name="parent_id", schema=TEXT, about="Children of this run."),
    Param(
        name="label",
        schema={"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}:.{1,256}$"},
        about="Runs with all of these labels, each as name:value.",
        many=True,
    ),
    Param(name="created_after", schema=TIME, about="Created then or later."),
    Param(name="created_before", schema=TIME, about="Created before then."),
    Param(
        name="query",
        schema={"type": "string", "maxLength": QUERY_LENGTH_MAX},
        about="Runs whose id, workflow or reference id has each of these words in it.",
    ),
    Param(
        name="undeliverable",
        schema={"type": "boolean", "default": False},
        about="Queued runs whose workflow, version and pool no connected worker serves.",
    ),
)
PAGE: Final = (
    Param(
        name="limit",
        schema={
            "type": "integer",
            "minimum": 1,
            "maximum": PAGE_SIZE_MAX,
            "default": PAGE_SIZE_DEFAULT,
        },
        about="Runs on a page.",
    ),
    Param(name="cursor", schema=TEXT, about="Where the page before ended."),
)
