"""The workload as a worker process of a cluster loads it: with a file that its effects go to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from .records import RecordLog
from .workload import (
    broken,
    deadline,
    doomed,
    endless,
    family,
    greeter,
    host,
    kid,
    listener,
    mixed,
    once,
    saga,
    sinks,
    vain,
)

__all__ = [
    "broken",
    "deadline",
    "doomed",
    "endless",
    "family",
    "greeter",
    "host",
    "kid",
    "listener",
    "mixed",
    "once",
    "saga",
    "vain",
]

EFFECTS: Final = "AIKI_CHAOS_EFFECTS"
"""The environment variable that names the file."""

if path := os.environ.get(EFFECTS):
    sinks.append(RecordLog(Path(path)))
