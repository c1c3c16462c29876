"""Files of JSON lines that outlast the process which writes them: effects, acknowledgements.

Each line is one `write` to a file opened with O_APPEND, and is on the disk when `append` returns.
What a process was told before it was killed is therefore there, whatever the database says: these
files are the truth that journals are compared with.

Invariant: every line that is complete is true; a line cut off by a kill is left out by `read`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, cast

from attrs import define, field

Record: TypeAlias = Mapping[str, object]


@define(eq=False)
class RecordLog:
    """Appends records to a file; safe to use from threads."""

    path: Path
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _file: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def append(self, **record: object) -> None:
        """Write one record, and return when it is on the disk."""
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)
            os.fdatasync(self._file)


def read(path: Path) -> list[Record]:
    """Return the records of a file in order; none if there is no file."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [cast("Record", json.loads(line)) for line in lines[:-1]]
