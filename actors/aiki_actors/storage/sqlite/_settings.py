"""How a SQLite database is opened: durability, bounds and memory, each with its reason."""

from __future__ import annotations

from typing import Final, Literal

from attrs import field, frozen, validators

MIB: Final = 1024 * 1024

_positive: Final = validators.gt(0)


@frozen
class SqliteSettings:
    """Settings of one database file.

    Attributes:
        synchronous: `full`: acknowledged writes survive a power cut. `normal`: they survive a
            crash of the process, and about three times as many fit into a second, but a power cut
            may take the last ones.
        busy_timeout_s: how long to wait, in seconds, for another process that is writing.
        outcome_wait_s: how long a cancelled caller of `append` stays, in seconds, to learn what
            became of its write. A write is carried to its end either way. Closing waits as long.
        readers_max: reading connections, and threads that use them, at a time.
        batch_changes_max: changes in one transaction. A batch of 1,000 takes some 20 ms, which
            bounds what a single caller waits for the others' sake.
        batch_bytes_max: bodies in one transaction, in bytes; a single append may be larger.
        cache_bytes: page cache of each connection, in bytes.
        mmap_bytes: how much of the file may be mapped into memory for reading, in bytes.
        wal_pages_max: pages in the write-ahead log at which it is folded into the database.
    """

    synchronous: Literal["full", "normal"] = field(
        default="full", validator=validators.in_(("full", "normal"))
    )
    busy_timeout_s: float = field(default=5.0, validator=validators.ge(0))
    outcome_wait_s: float = field(default=30.0, validator=validators.gt(0))
    readers_max: int = field(default=4, validator=_positive)
    batch_changes_max: int = field(default=1000, validator=_positive)
    batch_bytes_max: int = field(default=8 * MIB, validator=_positive)
    cache_bytes: int = field(default=2 * MIB, validator=_positive)
    mmap_bytes: int = field(default=64 * MIB, validator=validators.ge(0))
    wal_pages_max: int = field(default=4000, validator=_positive)


DEFAULT_SETTINGS: Final = SqliteSettings()
