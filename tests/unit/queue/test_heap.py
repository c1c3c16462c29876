"""The lazy heap against a sorted list, and its bound on memory."""

from __future__ import annotations

from attrs import define
from hypothesis import given, strategies as st

from aiki_actors.queue._heap import SLACK, LazyHeap


@define(eq=False)
class Item:
    rank: int
    order: int
    alive: bool = True


@given(st.lists(st.one_of(st.integers(0, 9), st.none(), st.sampled_from(["any"])), max_size=200))
def test_first_is_the_living_item_of_lowest_rank(steps: list[int | str | None]) -> None:
    """A number pushes that rank, None kills the first, "any" one in the middle."""
    heap = LazyHeap[Item](lambda item: item.alive)
    living: list[Item] = []
    for order, step in enumerate(steps):
        if isinstance(step, int):
            item = Item(step, order)
            living.append(item)
            heap.push(item.rank, item.order, item)
        elif living:
            dead = living.pop(0 if step is None else len(living) // 2)
            dead.alive = False
            heap.forget()
        living.sort(key=lambda item: (item.rank, item.order))
        assert heap.first() is (living[0] if living else None)
        assert heap.live == len(living)


def test_the_dead_never_outnumber_the_living_for_long() -> None:
    heap = LazyHeap[Item](lambda item: item.alive)
    heap.push(0, 0, Item(0, 0))
    for order in range(1, 10_000):
        item = Item(1, order)
        heap.push(1, order, item)
        item.alive = False
        heap.forget()
        assert len(heap._items) <= 2 * heap.live + SLACK + 1
