"""A change made ready for a database: checked, and encoded once, before anything is written.

Encoding happens in the caller's task, so that a value that cannot be stored is refused there and
never in the middle of a transaction that carries other runs' changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import frozen

from ._codec import EntryRow, encode_entry, encode_notice
from ._port import Change

NoticeRow: TypeAlias = tuple[str, str, str, str, bytes]
"""A notice as a row: id, source, target, kind, body. Its format is `FORMAT`."""


@frozen
class EncodedChange:
    """A change with its entries and notices as rows.

    Attributes:
        size_bytes: length of all bodies together, for bounding batches.
        last_seq: the run's last seq once this is applied.
    """

    change: Change
    rows: Sequence[EntryRow]
    notices: Sequence[NoticeRow]
    size_bytes: int

    @property
    def last_seq(self) -> int:
        """The run's last seq once this is applied."""
        return self.change.first_seq + len(self.rows) - 1


def encode_change(change: Change) -> EncodedChange:
    """Check a change and write its parts as rows.

    Raises:
        PayloadError: something in it cannot be JSON; the message names the place.
        ValueError: a time or duration in it is out of range.
    """
    check_change(change)
    rows = [encode_entry(entry) for entry in change.entries]
    notices: list[NoticeRow] = []
    for notice in change.notices:
        kind, body = encode_notice(notice)
        notices.append((notice.id, notice.source_id, notice.target_id, kind, body))
    size_bytes = sum([len(row[3]) for row in rows]) + sum([len(row[4]) for row in notices])
    return EncodedChange(change, rows, notices, size_bytes)


def check_change(change: Change) -> None:
    """Assert what the port demands of a change; a breach is a bug of the caller."""
    run_id, seq = change.run_id, change.first_seq
    assert seq >= 1, f"first_seq of run {run_id} is {seq}; the first entry has seq 1"
    for entry in change.entries:
        assert entry.seq == seq, f"entry {entry.seq} of run {run_id} stands where {seq} belongs"
        seq += 1
    row = change.projection
    assert row is None or row.run_id == run_id, f"run {run_id} has the row of {row.run_id}"
    if change.create:
        complete = change.first_seq == 1 and change.entries and row is not None
        assert complete, f"creating run {run_id} takes entries from seq 1 and a row"
    else:
        assert change.supersedes is None, f"run {run_id} supersedes another without being created"
        assert row is None or change.entries, f"the row of run {run_id} changes without an entry"
