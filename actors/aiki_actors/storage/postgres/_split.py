"""Spreading the changes of one `append` over the writers.

A run belongs to one writer, by its id, so that its entries keep their order. Changes that touch
each other, because one takes a reference id that another names or gives up, or settles what another
owes, go to one writer together: the order among them decides.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeAlias

from aiki_actors.storage._changes import EncodedChange

_Key: TypeAlias = tuple[str, ...]


def split(changes: Sequence[EncodedChange], writers: int) -> list[list[int]]:
    """Return the indexes of each writer's changes, in order."""
    parents: dict[_Key, _Key] = {}

    def root(key: _Key) -> _Key:
        while (parent := parents.setdefault(key, key)) != key:
            key = parent
        return key

    superseding = any(one.change.supersedes is not None for one in changes)
    for one in changes:
        for key in _touched(one, superseding=superseding):
            first, second = root((one.change.run_id,)), root(key)
            if first != second:
                # The smaller id stands for both, so that the order of the changes plays no part.
                parents[max(first, second)] = min(first, second)
    parts: list[list[int]] = [[] for _ in range(writers)]
    for index, one in enumerate(changes):
        owner = root((one.change.run_id,)) if parents else (one.change.run_id,)
        name = "\0".join(owner).encode(errors="surrogatepass")
        parts[zlib.crc32(name) % writers].append(index)
    return parts


def _touched(one: EncodedChange, *, superseding: bool) -> list[_Key]:
    change = one.change
    touched: list[_Key] = [("notice", notice.id) for notice in change.notices]
    touched += [("notice", settled) for settled in change.settled]
    run = change.projection
    if change.supersedes is not None:
        touched += [(change.supersedes,), ("references",)]
    elif not change.create or run is None or run.reference_id is None:
        return touched
    elif superseding:
        # Which reference id a superseded run gives up is not said here.
        touched.append(("references",))
    else:
        touched.append(("reference", run.namespace, run.workflow, run.reference_id))
    return touched
