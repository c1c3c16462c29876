"""Room for the write-ahead log, made ahead: a flush that also makes a file longer takes longer.

SQLite starts its log anew when it was folded into the database, and then writes over what is there;
until the first time each commit extends the file, and the flush has to record its new length as
well (measured: 190 instead of 115 µs). So once a database shows that it is written to, the log is
filled up with zeros to the length that it will have anyway, a piece at a time, while nobody waits.

That is safe: behind the last commit SQLite expects what an earlier round left there, and tells it
by its checksums. It happens in the writing thread, between two transactions. Where there is hardly
any room on the disk it does not happen.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from attrs import define, field

LOGGER: Final = logging.getLogger("aiki.storage")

COMMITS_FIRST: Final = 8
"""Commits before the first piece: who only looks, or starts a few runs, is spared it."""

PIECE_BYTES: Final = 4 * 1024 * 1024
"""Written at once: some 5 ms, a few times after the database was opened."""

ROOM_TIMES: Final = 64
"""So many times the log must be free on the disk."""

PAGE_BYTES: Final = 4096 + 24
"""A page in the log, with its header."""


@define(eq=False)
class LogSpace:
    """Makes the log of one database long enough. Belongs to the writing thread.

    Attributes:
        path: the database; None: it is in memory and has no log.
        wanted_bytes: how long the log becomes by itself.

    """

    path: Path | None
    wanted_bytes: int
    _commits: int = field(default=0, init=False)
    _done: bool = field(default=False, init=False)

    def committed(self) -> None:
        """Hear of a commit after which nothing waits; go on with the next piece."""
        if self._done or self.path is None:
            return
        self._commits += 1
        if self._commits < COMMITS_FIRST:
            return
        try:
            self._done = not self._grow(self.path)
        except OSError as error:
            self._done = True
            LOGGER.info("the log of %s is not made longer ahead: %s", self.path, error)

    def _grow(self, path: Path) -> bool:
        """Add a piece; False if there is nothing to add."""
        disk = os.statvfs(path.parent)
        if disk.f_bavail * disk.f_frsize < ROOM_TIMES * self.wanted_bytes:
            return False
        handle = os.open(f"{os.path.realpath(path)}-wal", os.O_WRONLY | os.O_CLOEXEC)
        try:
            length = os.fstat(handle).st_size
            piece = min(PIECE_BYTES, self.wanted_bytes - length)
            if piece <= 0:
                return False
            os.pwrite(handle, bytes(piece), length)
            os.fdatasync(handle)
        finally:
            os.close(handle)
        return True
