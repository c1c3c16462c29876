"""A heap from which things are taken out in the middle by marking them dead.

A dead item stays until it comes to the top or until the dead outnumber the living, when the heap is
rebuilt; so every operation is O(log n) on average and memory stays within twice the living items.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

from attrs import Factory, define

T = TypeVar("T")

SLACK: Final = 32
"""Dead items that are always tolerated, so that a small heap is not rebuilt all the time."""


@define(eq=False)
class LazyHeap(Generic[T]):
    """A min-heap by (rank, order); `order` must be unique, so that items are never compared.

    Attributes:
        live: how many items are alive; the owner counts one down with `forget` for each it kills.

    """

    _alive: Callable[[T], bool]
    _items: list[tuple[int, int, T]] = Factory(lambda: list[tuple[int, int, T]]())
    live: int = 0

    def push(self, rank: int, order: int, item: T) -> None:
        """Add an item that is alive."""
        self.live += 1
        heappush(self._items, (rank, order, item))

    def first(self) -> T | None:
        """Return the living item with the lowest rank, or None."""
        items = self._items
        while items:
            item = items[0][2]
            if self._alive(item):
                return item
            heappop(items)
        return None

    def forget(self) -> None:
        """Count one item as dead; `alive` must say so already."""
        self.live -= 1
        assert self.live >= 0, "more items were forgotten than were pushed"
        if len(self._items) > 2 * self.live + SLACK:
            self._items = [entry for entry in self._items if self._alive(entry[2])]
            heapify(self._items)
